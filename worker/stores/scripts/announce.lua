-- Say that a worker lives, and tell who else does.  KEYS[1]: the namespace's workers.
-- ARGV: worker, what it says of itself, milliseconds it counts as living, TTL of the key in seconds.
-- Answer: worker, what it said, next worker, ...  Those whose time is over are dropped. By the server's clock, so that
-- the clocks of workers do not matter. Safe to repeat.
local now = redis.call('TIME')
local milliseconds = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%013.0f', milliseconds + tonumber(ARGV[3])) .. ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])

local living = {}
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  if tonumber(string.sub(entries[i + 1], 1, 13)) > milliseconds then
    living[#living + 1] = entries[i]
    living[#living + 1] = string.sub(entries[i + 1], 14)
  else
    redis.call('HDEL', KEYS[1], entries[i])
  end
end
return living
