-- Tell which workers live, without any effect.  KEYS[1]: the namespace's workers.
-- Answer: worker, what it said, next worker, ...  By the server's clock, as `announce` does.
local now = redis.call('TIME')
local milliseconds = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)

local living = {}
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  if tonumber(string.sub(entries[i + 1], 1, 13)) > milliseconds then
    living[#living + 1] = entries[i]
    living[#living + 1] = string.sub(entries[i + 1], 14)
  end
end
return living
