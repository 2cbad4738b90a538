-- The word of a watchdog: the process lives, its event loop does not run.
-- KEYS: instances, instance:{id}, connections, gone, watchdogs
-- ARGV: id, connections as JSON, where the loop is blocked as JSON, since when in ms of blocking
-- Returns: {1, now in ms}; {-1, now} when the instance is not registered
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {-1, now}
end
redis.call('ZADD', KEYS[5], now, ARGV[1])
redis.call('HSET', KEYS[2], 'blocked_at', ARGV[3], 'blocked_since_ms', now - tonumber(ARGV[4]))
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
  redis.call('HDEL', KEYS[4], ARGV[1])
end
return {1, now}
