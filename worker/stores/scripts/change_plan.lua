-- Replace the plan of the request queues.  KEYS[1]: the namespace's plan.
-- ARGV: plan expected (empty: none), new plan, TTL in seconds.
-- Answer: 1 where the plan is the new one now, else 0. Safe to repeat: the same change is made once.
local key = KEYS[1]
local found = redis.call('HGET', key, 'plan') or ''
if found ~= ARGV[2] then
  if found ~= ARGV[1] then
    return 0
  end
  redis.call('DEL', key)
  redis.call('HSET', key, 'plan', ARGV[2])
end
redis.call('EXPIRE', key, ARGV[3])
return 1
