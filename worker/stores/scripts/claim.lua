-- Give a new epoch.  KEYS[1]: the namespace's epoch.  ARGV: TTL in seconds.
-- The clock (microseconds) lets epochs grow even where the key was lost; the key, where the clock went back.
-- Safe to repeat: a lost answer only leaves a number unused.
local now = redis.call('TIME')
local epoch = math.max((tonumber(redis.call('GET', KEYS[1])) or 0) + 1, tonumber(now[1]) * 1000000 + tonumber(now[2]))
-- Lua's own rendering of numbers keeps 14 digits; an epoch has 16.
local text = string.format('%.0f', epoch)
redis.call('SET', KEYS[1], text, 'EX', ARGV[1])
return text
