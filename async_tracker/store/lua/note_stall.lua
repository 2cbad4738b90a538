-- Announce that an instance is stalled: once for each time that it has fallen silent, however many sweepers see it. Each library has
-- a sweeper of its own, and another instance may take the sweep over meanwhile.
-- KEYS: instances, instance:{id}, events, stats
-- ARGV: id, judged heartbeat, length of the stream, lifetime of the stream in s, event as JSON, counter in the stats, their lifetime in s
-- Returns: 1 when it was announced now, 0 when it had been before, or when its heartbeat is no longer the one that was judged
local instances, instance, events, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, judged_heartbeat, events_kept, events_seconds, event = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local counter, stats_seconds = ARGV[6], ARGV[7]

if redis.call('ZSCORE', instances, id) ~= judged_heartbeat then
  return 0
end
if redis.pcall('HGET', instance, 'stalled_after_ms') == judged_heartbeat then -- of another type, it is announced by each sweeper
  return 0
end
redis.pcall('HSET', instance, 'stalled_after_ms', judged_heartbeat)
redis.pcall('XADD', events, 'MAXLEN', '~', events_kept, '*', 'event', event)
redis.call('EXPIRE', events, events_seconds)
redis.pcall('HINCRBY', stats, counter, 1)
redis.call('EXPIRE', stats, stats_seconds)
return 1
