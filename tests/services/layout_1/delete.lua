-- Forget a context.  KEYS[1]: the context's hash.
-- Answer: 1 where a turn had been committed, else 0. A repeat after a lost answer says 0.
local existed = redis.call('HEXISTS', KEYS[1], 'v')
redis.call('UNLINK', KEYS[1])
return existed
