-- Declare an instance dead, if its heartbeat, its connections and its watchdog's word are those that were judged.
-- From here on nothing that it sends under this id changes anything.
-- KEYS: instances, instance:{id}, connections, gone, watchdogs, dead, tombstone:{id}, events
-- ARGV: id, judged heartbeat, judged connections or '', judged word of the watchdog or '', reason, lifetime of the tombstone
--       in ms, length of the stream, event as JSON
-- Returns: 1 when it is dead now, 0 when the evidence has changed
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
if (redis.call('HGET', KEYS[3], ARGV[1]) or '') ~= ARGV[3] then
  return 0
end
if (redis.call('ZSCORE', KEYS[5], ARGV[1]) or '') ~= ARGV[4] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZADD', KEYS[6], now, ARGV[1])
redis.call('HSET', KEYS[2], 'died_at_ms', now, 'death_reason', ARGV[5])
redis.call('SET', KEYS[7], now, 'PX', ARGV[6])
redis.pcall('XADD', KEYS[8], 'MAXLEN', '~', ARGV[7], '*', 'event', ARGV[8])
redis.call('EXPIRE', KEYS[8], 2592000)
return 1
