-- What stands before the scripts on one context.  Its head, the field `h`, is one MessagePack value after another, always
-- in this order: version, revision, epoch noted (0: none), oldest turn kept, oldest reply kept; then of the turn that was
-- started last and is not finished its starts, attempt and request (0, '' and '' where there is none).  docs/decisions/0029

-- The eight, of what is stored of them.  Of a context in layout 1, where each was a field, they are read there without
-- any effect; where there is no such field either, they are those of a new context.
local function read_head(key, stored)
  if stored then
    return cmsgpack.unpack(stored)
  end
  local old = redis.call('HMGET', key, 'v', 'x', 'e', 't0', 'o0', 's', 'a', 'r')
  return tonumber(old[1]) or 0, tonumber(old[2]) or 0, tonumber(old[3]) or 0, tonumber(old[4]) or 0,
    tonumber(old[5]) or 1, tonumber(old[6]) or 0, old[7] or '', old[8] or ''
end

-- A worker that knows layout 1 alone would take a context without its fields for a new one.  An epoch that is no number
-- ends its load in an error; a revision that none can have read refuses its commits and edits; and where it only looks, no
-- turn is at this version, rather than nothing being there.
local function keep_layout_1_out(key)
  redis.call('HSET', key, 'e', 'layout 2', 'x', '0.5', 'v', '-1')
end

-- Rewrite a context that is in layout 1: its head, and each kept reply from its turn's number to its request.
-- False where the context is not in layout 1; for contexts without a head only.
local function adopted(key)
  if redis.call('HEXISTS', key, 'v') + redis.call('HEXISTS', key, 'e') == 0 then
    return false
  end
  local head = {read_head(key, false)}
  for n = head[5], head[1] do
    local kept = redis.call('HMGET', key, 'd:' .. n, 'o:' .. n)
    if kept[1] and kept[2] then
      redis.call('HSET', key, 'r:' .. kept[1], kept[2])
      redis.call('HDEL', key, 'o:' .. n, 'i:' .. kept[1])
    end
  end
  redis.call('HSET', key, 'h', cmsgpack.pack(unpack(head)))
  redis.call('HDEL', key, 't0', 'o0', 's', 'a', 'r')
  keep_layout_1_out(key)
  return true
end

-- The head and one more field as they are stored; a context in layout 1 is rewritten first.
local function head_and(key, field)
  local found = redis.call('HMGET', key, 'h', field)
  if not found[1] and adopted(key) then
    found = redis.call('HMGET', key, 'h', field)
  end
  return found[1], found[2]
end
