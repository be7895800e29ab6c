-- Load a context for a turn, note the epoch in it and count the start of the turn.
-- KEYS[1]: the context's hash.  ARGV: request id, epoch, attempt, history, TTL in seconds, the highest start that counts,
-- then version and revision of what the caller has in hand, as loaded or committed under this epoch (empty: nothing).
-- Answer: {"ok", version, main, reply, starts, packed turns, revision}, {"known", reply, starts} where the caller has the
-- rest in hand (docs/decisions/0028), or {"abandoned", epoch noted}.
-- Safe to repeat: one attempt counts once. A committed request counts and notes nothing. A start beyond
-- the highest that counts is told, and leaves no trace (docs/decisions/0014).
local key, request, attempt = KEYS[1], ARGV[1], ARGV[3]
local epoch, history, counted = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[6])

local stored, reply = head_and(key, 'r:' .. request)
local version, revision, noted, oldest_turn, oldest_reply, count, last_attempt, started = read_head(key, stored)

if noted > epoch then
  return {'abandoned', string.format('%.0f', noted)}
end

local starts = 0
if not reply then
  local before = started == request and count or 0
  local is_repeated = before > 0 and last_attempt == attempt
  starts = is_repeated and before or before + 1
  if starts <= counted then
    count, last_attempt, started = starts, attempt, request
  end
  if not stored then
    keep_layout_1_out(key)
  end
  redis.call('HSET', key, 'h',
    cmsgpack.pack(version, revision, epoch, oldest_turn, oldest_reply, count, last_attempt, started))
  redis.call('EXPIRE', key, ARGV[5])
end

-- A context that was deleted has lost its epoch as well, so one of the same version made since is not taken for it.
if noted == epoch and version == tonumber(ARGV[7]) and revision == tonumber(ARGV[8]) then
  return {'known', reply, starts}
end

-- One after another, each behind its length: most turns of a bot look at none of them (`worker.stores.packed_turns`).
local turns, names = {}, {}
for id = math.max(0, version - history + 1), version do
  names[#names + 1] = 't:' .. id
  -- Many at a time, as each command costs more than the reading; not all, as Lua passes some 8,000 values at most.
  if id == version or #names == 1000 then
    for _, turn in ipairs(redis.call('HMGET', key, unpack(names))) do
      turns[#turns + 1] = struct.pack('<i4', turn and #turn or -1)
      turns[#turns + 1] = turn or ''
    end
    names = {}
  end
end
-- Fixed width: an answer is no longer at turn 20,000 than at turn 20.
return {'ok', string.format('%012d', version), redis.call('HGET', key, 'm'), reply, starts, table.concat(turns), revision}
