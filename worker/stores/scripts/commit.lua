-- Commit a turn: fence on the version, store turn and reply, drop what the windows no longer cover.
-- KEYS[1]: the context's hash.  ARGV: request id, version loaded, main, reply, TTL in seconds,
-- replies kept, turns kept (0: all), revision loaded, then turn id and turn, as often as needed.
-- Answer: {"ok"}, {"repeated", reply committed before} or {"conflict", version now, revision now}.
-- Safe to repeat: a request that is already committed changes nothing.
local key, request = KEYS[1], ARGV[1]
local outbox, max_turns = tonumber(ARGV[6]), tonumber(ARGV[7])

local stored, committed = head_and(key, 'r:' .. request)
local version, revision, epoch, oldest_turn, oldest_reply, starts, attempt, started = read_head(key, stored)

if committed then
  return {'repeated', committed}
end
if version ~= tonumber(ARGV[2]) or revision ~= tonumber(ARGV[8]) then
  return {'conflict', string.format('%012d', version), revision}
end

-- What the windows leave behind is dropped from the oldest on, a bounded number per commit:
-- one as a rule, more after an operator has made a window smaller.
local function advanced(oldest, keep_from)
  return math.max(oldest, math.min(keep_from, oldest + 64))
end

local turn = version + 1
local first_turn = max_turns > 0 and turn - max_turns + 1 or 0
local keep_replies, keep_turns = advanced(oldest_reply, turn - outbox + 1), advanced(oldest_turn, first_turn)
if started == request then
  starts, attempt, started = 0, '', ''
end

-- The writes that need memory come first: Redis refuses the first of them or none. One command, as each costs more than
-- the fields it writes.
if not stored then
  keep_layout_1_out(key)
end
redis.call('HSET', key, 'm', ARGV[3], 'r:' .. request, ARGV[4], 'd:' .. turn, request, 'h',
  cmsgpack.pack(turn, revision, epoch, keep_turns, keep_replies, starts, attempt, started))
for i = 9, #ARGV, 2 do
  local id = tonumber(ARGV[i])
  -- A change to a turn that was dropped would otherwise stay for ever.
  if id >= math.max(first_turn, oldest_turn) then
    redis.call('HSET', key, 't:' .. id, ARGV[i + 1])
  end
end

for n = oldest_turn, keep_turns - 1 do
  redis.call('HDEL', key, 't:' .. n)
end
for n = oldest_reply, keep_replies - 1 do
  local id = redis.call('HGET', key, 'd:' .. n)
  redis.call('HDEL', key, 'd:' .. n, 'r:' .. (id or ''))
end
redis.call('EXPIRE', key, ARGV[5])
return {'ok'}
