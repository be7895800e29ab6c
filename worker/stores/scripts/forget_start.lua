-- Take back the start counted for an attempt of a request, or all of its starts.
-- KEYS[1]: the context's hash.  ARGV: request id, attempt (empty: all).
-- Safe to repeat: an attempt that is taken back is no longer the last one. The noted epoch stays.
local key, request, attempt = KEYS[1], ARGV[1], ARGV[2]
local stored = redis.call('HGET', key, 'h')
if not stored and adopted(key) then
  stored = redis.call('HGET', key, 'h')
end
local version, revision, epoch, oldest_turn, oldest_reply, starts, last_attempt, started = read_head(key, stored)
if started ~= request or (attempt ~= '' and last_attempt ~= attempt) then
  return false
end
if attempt == '' or starts <= 1 then
  starts, started = 0, ''
else
  starts = starts - 1
end
-- Redis without memory refuses a script at its first write, where that needs any: taking back a start must not wait for it.
redis.call('HDEL', key, 'r')
redis.call('HSET', key, 'h', cmsgpack.pack(version, revision, epoch, oldest_turn, oldest_reply, starts, '', started))
return false
