-- Read the plan of the request queues.  KEYS[1]: the namespace's plan.  ARGV: TTL in seconds.
-- Answer: {plan or nothing, {queues noted as passed}}. Reading keeps it alive: workers that work keep their plan.
local key = KEYS[1]
redis.call('EXPIRE', key, ARGV[1])

local passed = {}
local fields = redis.call('HKEYS', key)
for i = 1, #fields do
  if string.sub(fields[i], 1, 2) == 'p:' then
    passed[#passed + 1] = string.sub(fields[i], 3)
  end
end
return {redis.call('HGET', key, 'plan'), passed}
