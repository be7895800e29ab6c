-- Read a context without any effect.  KEYS[1]: the context's hash.  ARGV: history.
-- Answer: {version, main, starts, turns, revision}, or nothing where no turn was ever committed.
local key = KEYS[1]
local fields = redis.call('HMGET', key, 'v', 'm', 's', 'x')
local version = tonumber(fields[1])
if not version then
  return false
end

local turns = {}
for id = math.max(0, version - tonumber(ARGV[1]) + 1), version do
  turns[#turns + 1] = redis.call('HGET', key, 't:' .. id)
end
return {version, fields[2], tonumber(fields[3]) or 0, turns, tonumber(fields[4]) or 0}
