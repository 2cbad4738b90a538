-- The word of a watchdog: the process lives, its event loop does not run.
-- KEYS: instances, instance:{id}, connections, gone, watchdogs
-- ARGV: id, sequence number, connections as JSON, where the loop is blocked as JSON, since when in ms of blocking
-- Returns: {1, now in ms}; {0, now} when a newer write was seen: the loop runs again; {-1, now} when the instance is not registered
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {-1, now}
end
local seen = redis.call('HGET', KEYS[2], 'sequence')
if seen and tonumber(seen) >= tonumber(ARGV[2]) then
  return {0, now}
end
redis.call('ZADD', KEYS[5], now, ARGV[1])
redis.call('HSET', KEYS[2], 'sequence', ARGV[2], 'blocked_at', ARGV[4], 'blocked_since_ms', now - tonumber(ARGV[5]))
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[3] then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
  redis.call('HDEL', KEYS[4], ARGV[1])
end
return {1, now}
