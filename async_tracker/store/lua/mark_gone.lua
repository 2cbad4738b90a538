-- Note since when the connections of an instance are gone, or that they are back.
-- The note is made only for the connections that were looked for: an instance that registers anew meanwhile is not noted.
-- KEYS: connections, gone
-- ARGV: id, connections as JSON that were looked for, 1 when gone or 0 when open
-- Returns: since when in ms, or 0 when they are not gone
local connections, gone = KEYS[1], KEYS[2]
local id, looked_for, is_gone = ARGV[1], ARGV[2], ARGV[3]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if is_gone == '0' then
  redis.call('HDEL', gone, id)
  return 0
end
if redis.call('HGET', connections, id) ~= looked_for then
  return 0
end
if not tonumber(redis.call('HGET', gone, id)) then
  redis.call('HSET', gone, id, now)
end
return tonumber(redis.call('HGET', gone, id))
