-- Read a context without any effect.  KEYS[1]: the context's hash.  ARGV: history.
-- Answer: {version, main, starts, turns, revision}, or nothing where no turn was ever committed.
local key = KEYS[1]
local fields = redis.call('HMGET', key, 'h', 'm')
if not fields[2] then
  return false
end
local version, revision, _, _, _, starts = read_head(key, fields[1])

local turns = {}
for id = math.max(0, version - tonumber(ARGV[1]) + 1), version do
  turns[#turns + 1] = redis.call('HGET', key, 't:' .. id)
end
return {version, fields[2], starts, turns, revision}
