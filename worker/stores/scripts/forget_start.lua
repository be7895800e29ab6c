-- Take back the counted starts of a request.  KEYS[1]: the context's hash.  ARGV: request id.
-- Safe to repeat. The noted epoch stays.
if redis.call('HGET', KEYS[1], 'r') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'r', 'a', 's')
end
return false
