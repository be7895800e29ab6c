-- Commit a turn: fence on the version, store turn and reply, drop what the windows no longer cover.
-- KEYS[1]: the context's hash.  ARGV: request id, version loaded, main, reply, TTL in seconds,
-- replies kept, turns kept (0: all), revision loaded, then turn id and turn, as often as needed.
-- Answer: {"ok"}, {"repeated", reply committed before} or {"conflict", version now, revision now}.
-- Safe to repeat: a request that is already committed changes nothing.
local key, request = KEYS[1], ARGV[1]
local outbox, max_turns = tonumber(ARGV[6]), tonumber(ARGV[7])

local fields = redis.call('HMGET', key, 'v', 'i:' .. request, 'r', 'o0', 't0', 'x')
local version, committed, started = tonumber(fields[1]) or 0, fields[2], fields[3]
local oldest_reply, oldest_turn = tonumber(fields[4]) or 1, tonumber(fields[5]) or 0
local revision = tonumber(fields[6]) or 0

if committed then
  return {'repeated', redis.call('HGET', key, 'o:' .. committed)}
end
if version ~= tonumber(ARGV[2]) or revision ~= tonumber(ARGV[8]) then
  return {'conflict', string.format('%012d', version), revision}
end

-- What the windows leave behind is dropped from the oldest on, a bounded number per commit:
-- one as a rule, more after an operator has made a window smaller.
local function advance(oldest, keep_from, drop)
  local stop = math.min(keep_from, oldest + 64)
  for n = oldest, stop - 1 do
    drop(n)
  end
  return math.max(oldest, stop)
end

local turn = version + 1
local first_turn = max_turns > 0 and turn - max_turns + 1 or 0

-- The writes that need memory come first: Redis refuses the first of them or none.
redis.call('HSET', key, 'v', turn, 'm', ARGV[3], 'i:' .. request, turn, 'd:' .. turn, request, 'o:' .. turn, ARGV[4])
for i = 9, #ARGV, 2 do
  local id = tonumber(ARGV[i])
  -- A change to a turn that was dropped would otherwise stay for ever.
  if id >= math.max(first_turn, oldest_turn) then
    redis.call('HSET', key, 't:' .. id, ARGV[i + 1])
  end
end

oldest_turn = advance(oldest_turn, first_turn, function(n)
  redis.call('HDEL', key, 't:' .. n)
end)
oldest_reply = advance(oldest_reply, turn - outbox + 1, function(n)
  local id = redis.call('HGET', key, 'd:' .. n)
  redis.call('HDEL', key, 'd:' .. n, 'o:' .. n, 'i:' .. (id or ''))
end)
-- Where nothing was dropped nothing is noted; a context without a note has its first reply and turn.
if oldest_reply ~= (tonumber(fields[4]) or 1) or oldest_turn ~= (tonumber(fields[5]) or 0) then
  redis.call('HSET', key, 'o0', oldest_reply, 't0', oldest_turn)
end

if started == request then
  redis.call('HDEL', key, 'r', 'a', 's')
end
redis.call('EXPIRE', key, ARGV[5])
return {'ok'}
