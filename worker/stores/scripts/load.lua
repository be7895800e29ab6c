-- Load a context for a turn, note the epoch in it and count the start of the turn.
-- KEYS[1]: the context's hash.  ARGV: request id, epoch, attempt, history, TTL in seconds, the highest start that counts.
-- Answer: {"ok", version, main, reply, starts, turns, revision} or {"abandoned", epoch noted}.
-- Safe to repeat: one attempt counts once. A committed request counts and notes nothing. A start beyond
-- the highest that counts is told, and leaves no trace (docs/decisions/0014).
local key, request, attempt = KEYS[1], ARGV[1], ARGV[3]
local epoch, history, counted = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[6])

local fields = redis.call('HMGET', key, 'v', 'm', 'e', 'r', 'a', 's', 'i:' .. request, 'x')
local version, main, noted = tonumber(fields[1]) or 0, fields[2], fields[3]
local started, last_attempt, count, committed = fields[4], fields[5], fields[6], fields[7]

if noted and tonumber(noted) > epoch then
  return {'abandoned', noted}
end

local reply, starts = false, 0
if committed then
  reply = redis.call('HGET', key, 'o:' .. committed)
else
  local before = started == request and tonumber(count) or 0
  local is_repeated = before > 0 and last_attempt == attempt
  starts = is_repeated and before or before + 1
  if starts <= counted then
    redis.call('HSET', key, 'e', ARGV[2], 'r', request, 'a', attempt, 's', starts)
  else
    redis.call('HSET', key, 'e', ARGV[2])
  end
  redis.call('EXPIRE', key, ARGV[5])
end

local turns, names = {}, {}
for id = math.max(0, version - history + 1), version do
  names[#names + 1] = 't:' .. id
  -- Many at a time, as each command costs more than the reading; not all, as Lua passes some 8,000 values at most.
  if id == version or #names == 1000 then
    for _, turn in ipairs(redis.call('HMGET', key, unpack(names))) do
      turns[#turns + 1] = turn
    end
    names = {}
  end
end
-- Fixed width: an answer is no longer at turn 20,000 than at turn 20.
return {'ok', string.format('%012d', version), main, reply, starts, turns, tonumber(fields[8]) or 0}
