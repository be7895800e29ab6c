-- Change a context outside of any turn: fence on version and revision, store what is new, count the edit.
-- KEYS[1]: the context's hash.  ARGV: edit id, version read, revision read, new version, main, TTL in seconds,
-- turns kept (0: all), then turn id and turn, as often as needed.
-- Answer: {"ok"} or {"conflict", version now, revision now}.
-- Safe to repeat: the last edit is known by its id. Replies stay, numbered by versions, which never go down.
local key, max_turns, new_version = KEYS[1], tonumber(ARGV[7]), tonumber(ARGV[4])

local fields = redis.call('HMGET', key, 'v', 'x', 'xi', 't0', 'o0')
local version, revision, oldest_turn = tonumber(fields[1]) or 0, tonumber(fields[2]) or 0, tonumber(fields[4]) or 0
local oldest_reply = tonumber(fields[5]) or 1

if fields[3] == ARGV[1] then
  return {'ok'}
end
if version ~= tonumber(ARGV[2]) or revision ~= tonumber(ARGV[3]) or new_version < version then
  return {'conflict', string.format('%012d', version), revision}
end

local first_turn = math.max(max_turns > 0 and new_version - max_turns + 1 or 0, oldest_turn)

redis.call('HSET', key, 'v', new_version, 'm', ARGV[5], 'x', revision + 1, 'xi', ARGV[1])
if oldest_reply > version then
  -- There are no replies. Otherwise the commits to come would look for one of each version made here, to drop it.
  redis.call('HSET', key, 'o0', new_version + 1)
end
for i = 8, #ARGV, 2 do
  if tonumber(ARGV[i]) >= first_turn then
    redis.call('HSET', key, 't:' .. tonumber(ARGV[i]), ARGV[i + 1])
  end
end
redis.call('EXPIRE', key, ARGV[6])
return {'ok'}
