-- Note that a request queue is passed.  KEYS[1]: the namespace's plan.  ARGV: queue, TTL in seconds.
-- Safe to repeat. The note goes with the plan it was made under.
redis.call('HSET', KEYS[1], 'p:' .. ARGV[1], '')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
