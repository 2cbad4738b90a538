-- Put an order for one instance into its hash, from where its next beat or write takes it along. It is open for one beat of that
-- instance and the time that the caller gives.
-- KEYS: instances, instance:{id}
-- ARGV: id, id of the order, kind of the order, order as JSON, for how many ms beyond a beat it is open, how many may be open at most
-- Returns: {1, for how many ms it is open}; {0, 0} when no such instance is registered; {-1, 0} when the instance takes no orders of
--          that kind; {-2, 0} when too many are open
local instances, instance = KEYS[1], KEYS[2]
local id, order, kind, text, beyond_ms, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', instances, id) then
  return {0, 0}
end
local said = redis.call('HMGET', instance, 'takes', 'beats_every_ms', 'orders')
local takes, beats_every_ms, orders = said[1] or '', tonumber(said[2] or 0) or 0, said[3] or ''
if not string.find(' ' .. takes .. ' ', ' ' .. kind .. ' ', 1, true) then
  return {-1, 0}
end
local open = {}
for line in string.gmatch(orders, '[^\n]+') do
  local until_ms = tonumber(string.match(line, '^%S+ (%d+) ')) or 0
  if until_ms > now then -- the others were never taken back: their callers are gone
    open[#open + 1] = line
  end
end
if #open >= most then
  return {-2, 0}
end
local open_ms = beats_every_ms + beyond_ms
open[#open + 1] = order .. ' ' .. string.format('%.0f', now + open_ms) .. ' ' .. text
redis.call('HSET', instance, 'orders', table.concat(open, '\n'))
return {1, open_ms}
