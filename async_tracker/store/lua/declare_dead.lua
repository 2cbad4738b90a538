-- Declare an instance dead, if its heartbeat, its connections and its watchdog's word are those that were judged.
-- From here on nothing that it sends under this id changes anything.
-- KEYS: instances, instance:{id}, connections, gone, watchdogs, dead, tombstone:{id}, events, stats,
--       changed, hosts
-- ARGV: id, judged heartbeat, judged connections or '', judged word of the watchdog or '', reason, 1 when its death counts
--       against no job else 0, lifetime of the tombstone in ms, length of the stream, lifetime of the stream in s, event as JSON,
--       counter in the stats, their lifetime in s, lifetime of the changes in s
-- Returns: 1 when it is dead now, 0 when the evidence has changed
local instances, instance, connections, gone, watchdogs, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local tombstone, events, stats, changed, hosts = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local id, judged_heartbeat, judged_connections, judged_word, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local blameless, tombstone_ms, events_kept, events_seconds, event = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local counter, stats_seconds, changed_seconds = ARGV[11], ARGV[12], ARGV[13]

if redis.call('ZSCORE', instances, id) ~= judged_heartbeat then
  return 0
end
if (redis.call('HGET', connections, id) or '') ~= judged_connections then
  return 0
end
if (redis.call('ZSCORE', watchdogs, id) or '') ~= judged_word then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREM', instances, id)
redis.call('HDEL', connections, id)
redis.call('HDEL', gone, id)
redis.call('ZREM', watchdogs, id)
local host_id = redis.pcall('HGET', instance, 'host_id')
if type(host_id) == 'string' then
  redis.pcall('ZREM', hosts, host_id .. ' ' .. id)
end
redis.pcall('ZADD', changed, now, id) -- another program's key costs sweepers the list of changes, and nothing else
redis.pcall('EXPIRE', changed, changed_seconds)
redis.call('ZADD', dead, now, id)
redis.pcall('HSET', instance, 'died_at_ms', now, 'death_reason', reason) -- of another type, it is dead all the same
if blameless == '1' then
  redis.pcall('HSET', instance, 'blameless', 1)
end
redis.call('SET', tombstone, now, 'PX', tombstone_ms)
redis.pcall('XADD', events, 'MAXLEN', '~', events_kept, '*', 'event', event)
redis.call('EXPIRE', events, events_seconds)
redis.pcall('HINCRBY', stats, counter, 1)
redis.call('EXPIRE', stats, stats_seconds)
return 1
