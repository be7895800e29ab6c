-- Take back the start counted for an attempt of a request, or all of its starts.
-- KEYS[1]: the context's hash.  ARGV: request id, attempt (empty: all).
-- Safe to repeat: an attempt that is taken back is no longer the last one. The noted epoch stays.
local key, attempt = KEYS[1], ARGV[2]
local fields = redis.call('HMGET', key, 'r', 'a', 's')
if fields[1] ~= ARGV[1] or (attempt ~= '' and fields[2] ~= attempt) then
  return false
end
if attempt == '' or tonumber(fields[3]) <= 1 then
  redis.call('HDEL', key, 'r', 'a', 's')
else
  redis.call('HSET', key, 'a', '', 's', tonumber(fields[3]) - 1)
end
return false
