-- One heartbeat: renew the instance, its changing fields, its connections if they changed, its counters.
-- Counters come as totals of this instance and are added as differences, so a beat that arrives twice counts once.
-- KEYS: instances, instance:{id}, connections, gone, watchdogs, counters:{id}, stats, changed, lease:sweep:{library}
-- ARGV: id, sequence number, connections as JSON or '' when unchanged, lifetime of the stats in s, lifetime of the changes in s,
--       number of fields n, n * (field, value), then counter and total pairs
-- Returns: {1, now in ms, its open orders, number of instances, 1 when an instance holds the lease, else 0};
--          {0, now, '', 0, 1} when a newer write was seen; {-1, now, '', 0, 1} when it is not registered
local instances, instance, connections, gone, watchdogs, counters, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local changed, lease = KEYS[8], KEYS[9]
local id, sequence, changed_connections, stats_seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local changed_seconds, fields = ARGV[5], tonumber(ARGV[6])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', instances, id) then
  return {-1, now, '', 0, 1}
end
local seen, orders = unpack(redis.call('HMGET', instance, 'sequence', 'orders'))
if seen and tonumber(seen) >= tonumber(sequence) then
  return {0, now, '', 0, 1}
end
redis.call('ZADD', instances, 'XX', now, id)
local first_field = 7
local first_counter = first_field + 2 * fields
redis.call('HSET', instance, 'sequence', sequence, unpack(ARGV, first_field, first_counter - 1))
if changed_connections ~= '' then
  redis.call('HSET', connections, id, changed_connections)
  redis.call('HDEL', gone, id)
  redis.pcall('ZADD', changed, now, id) -- another program's key costs sweepers the list of changes, and nothing else
  redis.pcall('EXPIRE', changed, changed_seconds)
end
redis.call('ZREM', watchdogs, id)
local counted = false
for i = first_counter, #ARGV, 2 do
  local counter, total = ARGV[i], ARGV[i + 1]
  local known = redis.pcall('HGET', counters, counter) -- of another type, it costs the counters as well
  local added = type(known) == 'table' and 0 or tonumber(total) - (tonumber(known or 0) or 0)
  if added ~= 0 then
    redis.call('HSET', counters, counter, total)
    redis.pcall('HINCRBY', stats, counter, added) -- another program's key of that name costs the counters, not the heartbeat
    counted = true
  end
end
if counted then
  redis.call('EXPIRE', stats, stats_seconds)
end
return {1, now, orders or '', redis.call('ZCARD', instances), redis.call('EXISTS', lease)}
