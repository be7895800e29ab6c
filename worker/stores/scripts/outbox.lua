-- Read the requests that a context remembers, without any effect.
-- KEYS[1]: the context's hash.  ARGV: the first turn to look at (empty: the oldest whose reply is kept).
-- Answer: {next turn to look at (nothing: no more), request started and not finished ('': none),
-- request id, reply, and so on, the oldest first}.  Some turns a call: an import may have left a long gap in their numbers.
local key = KEYS[1]
local stored = redis.call('HGET', key, 'h')
local version, _, _, _, oldest_reply, _, _, started = read_head(key, stored)
local first = tonumber(ARGV[1]) or oldest_reply
local last = math.min(first + 99, version)

local answer = {last < version and last + 1, started}
for n = first, last do
  local request = redis.call('HGET', key, 'd:' .. n)
  local reply = request and redis.call('HGET', key, stored and 'r:' .. request or 'o:' .. n)
  if reply then
    answer[#answer + 1] = request
    answer[#answer + 1] = reply
  end
end
return answer
