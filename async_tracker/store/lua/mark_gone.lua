-- Note since when the connections of an instance are gone, or that they are back.
-- The mark carries the connections that were looked for: one that registers anew meanwhile is not marked.
-- KEYS: connections, gone
-- ARGV: id, connections as JSON that were looked for, 1 when gone or 0 when open
-- Returns: since when in ms, or 0 when there is no mark
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] == '0' then
  redis.call('HDEL', KEYS[2], ARGV[1])
  return 0
end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HSETNX', KEYS[2], ARGV[1], now)
return tonumber(redis.call('HGET', KEYS[2], ARGV[1]))
