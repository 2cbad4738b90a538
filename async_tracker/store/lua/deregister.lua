-- An orderly end. Runs that are left are orphans at once; without any, nothing of the instance stays.
-- KEYS: instances, instance:{id}, jobs:{id}, connections, gone, watchdogs, dead, tombstone:{id}, changed, hosts
-- ARGV: id, lifetime of the tombstone in ms, lifetime of the changes in s
-- Returns: number of runs left; -1 when it was not registered
local instances, instance, jobs, connections = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local gone, watchdogs, dead, tombstone, changed, hosts = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local id, tombstone_ms, changed_seconds = ARGV[1], ARGV[2], ARGV[3]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', instances, id) then
  return -1
end
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
redis.call('SET', tombstone, now, 'PX', tombstone_ms)
local left = redis.pcall('SCARD', jobs)
if type(left) == 'table' then -- of another type: what is left there a sweep must find out
  left = 1
end
if left > 0 then
  redis.call('ZADD', dead, now, id)
  redis.pcall('HSET', instance, 'state', 'draining', 'died_at_ms', now, 'death_reason', 'it shut down with runs left')
else
  redis.call('DEL', instance, jobs)
end
return left
