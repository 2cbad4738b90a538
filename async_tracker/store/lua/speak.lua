-- The word of a watchdog: the process lives, its event loop does not run.
-- KEYS: instances, instance:{id}, connections, gone, watchdogs, changed
-- ARGV: id, sequence number, connections as JSON, where the loop is blocked as JSON, for how many ms it has been blocked,
--       lifetime of the changes in s
-- Returns: {1, now in ms, its open orders}; {0, now, ''} when a newer write was seen: the loop runs again; {-1, now, ''} when the
--          instance is not registered
local instances, instance, connections, gone, watchdogs, changed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, sequence, own_connections, stack, blocked_for_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local changed_seconds = ARGV[6]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', instances, id) then
  return {-1, now, ''}
end
local seen, orders = unpack(redis.call('HMGET', instance, 'sequence', 'orders'))
if seen and tonumber(seen) >= tonumber(sequence) then
  return {0, now, ''}
end
redis.call('ZADD', watchdogs, now, id)
redis.call('HSET', instance, 'sequence', sequence, 'blocked_at', stack, 'blocked_since_ms', now - blocked_for_ms)
if redis.call('HGET', connections, id) ~= own_connections then
  redis.call('HSET', connections, id, own_connections)
  redis.call('HDEL', gone, id)
  redis.pcall('ZADD', changed, now, id) -- another program's key costs sweepers the list of changes, and nothing else
  redis.pcall('EXPIRE', changed, changed_seconds)
end
return {1, now, orders or ''}
