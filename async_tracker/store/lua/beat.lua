-- One heartbeat: renew the instance, its changing fields, its connections if they changed, its counters.
-- Counters come as totals of this instance and are added as differences, so a beat that arrives twice counts once.
-- KEYS: instances, instance:{id}, connections, gone, watchdogs, counters:{id}, stats, stats:minute:{m}
-- ARGV: id, sequence number, connections as JSON or '' when unchanged, number of fields n, n * (field, value),
--       then counter and total pairs
-- Returns: {1, now in ms}; {0, now} when a newer write was seen; {-1, now} when it is not registered
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {-1, now}
end
local seen = redis.call('HGET', KEYS[2], 'sequence')
if seen and tonumber(seen) >= tonumber(ARGV[2]) then
  return {0, now}
end
redis.call('ZADD', KEYS[1], 'XX', now, ARGV[1])
local last_field = 4 + 2 * tonumber(ARGV[4])
redis.call('HSET', KEYS[2], 'sequence', ARGV[2], unpack(ARGV, 5, last_field))
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
  redis.call('HDEL', KEYS[4], ARGV[1])
end
redis.call('ZREM', KEYS[5], ARGV[1])
local counted = false
for i = last_field + 1, #ARGV, 2 do
  local before = tonumber(redis.call('HGET', KEYS[6], ARGV[i]) or 0)
  local added = tonumber(ARGV[i + 1]) - before
  if added ~= 0 then
    redis.call('HSET', KEYS[6], ARGV[i], ARGV[i + 1])
    redis.pcall('HINCRBY', KEYS[7], ARGV[i], added) -- somebody else's key of that name costs the counters, not the heartbeat
    redis.pcall('HINCRBY', KEYS[8], ARGV[i], added)
    counted = true
  end
end
if counted then
  redis.call('EXPIRE', KEYS[7], 2592000)
  redis.call('EXPIRE', KEYS[8], 86400)
end
return {1, now}
