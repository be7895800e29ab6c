-- Change a context outside of any turn: fence on version and revision, store what is new, count the edit.
-- KEYS[1]: the context's hash.  ARGV: edit id, version read, revision read, new version, main, TTL in seconds,
-- turns kept (0: all), then turn id and turn, as often as needed.
-- Answer: {"ok"} or {"conflict", version now, revision now}.
-- Safe to repeat: the last edit is known by its id. Replies stay, numbered by versions, which never go down.
local key, max_turns, new_version = KEYS[1], tonumber(ARGV[7]), tonumber(ARGV[4])

local stored, last_edit = head_and(key, 'xi')
local version, revision, epoch, oldest_turn, oldest_reply, starts, attempt, started = read_head(key, stored)

if last_edit == ARGV[1] then
  return {'ok'}
end
if version ~= tonumber(ARGV[2]) or revision ~= tonumber(ARGV[3]) or new_version < version then
  return {'conflict', string.format('%012d', version), revision}
end

local first_turn = math.max(max_turns > 0 and new_version - max_turns + 1 or 0, oldest_turn)
if oldest_reply > version then
  -- There are no replies. Otherwise the commits to come would look for one of each version made here, to drop it.
  oldest_reply = new_version + 1
end

if not stored then
  keep_layout_1_out(key)
end
redis.call('HSET', key, 'm', ARGV[5], 'xi', ARGV[1], 'h',
  cmsgpack.pack(new_version, revision + 1, epoch, oldest_turn, oldest_reply, starts, attempt, started))
for i = 8, #ARGV, 2 do
  if tonumber(ARGV[i]) >= first_turn then
    redis.call('HSET', key, 't:' .. tonumber(ARGV[i]), ARGV[i + 1])
  end
end
redis.call('EXPIRE', key, ARGV[6])
return {'ok'}
