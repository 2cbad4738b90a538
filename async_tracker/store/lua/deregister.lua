-- An orderly end. Runs that are left are orphans at once; without any, nothing of the instance stays.
-- KEYS: instances, instance:{id}, jobs:{id}, counters:{id}, connections, gone, watchdogs, dead, tombstone:{id}
-- ARGV: id, lifetime of the tombstone in ms
-- Returns: number of runs left; -1 when it was not registered
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return -1
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[1])
redis.call('ZREM', KEYS[7], ARGV[1])
redis.call('SET', KEYS[9], now, 'PX', ARGV[2])
local left = redis.call('SCARD', KEYS[3])
if left > 0 then
  redis.call('ZADD', KEYS[8], now, ARGV[1])
  redis.call('HSET', KEYS[2], 'state', 'draining', 'died_at_ms', now, 'death_reason', 'it shut down with runs left')
else
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
end
return left
