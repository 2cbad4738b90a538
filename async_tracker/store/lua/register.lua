-- Make an instance known, or known again after its registration was lost with the server's data.
-- KEYS: instances, instance:{id}, connections, gone, tombstone:{id}
-- ARGV: id, sequence number, its connections as JSON, then field and value pairs of its hash
-- Returns: {1, now in ms}; {0, now} when a newer write was seen; {-1, now} when it was declared dead and must take a new id
local instances, instance, connections, gone, tombstone = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, sequence, own_connections = ARGV[1], ARGV[2], ARGV[3]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', tombstone) == 1 then
  return {-1, now}
end
local seen = redis.call('HGET', instance, 'sequence')
if seen and tonumber(seen) >= tonumber(sequence) then
  return {0, now}
end
redis.call('ZADD', instances, now, id)
local first_field = 4
redis.call('HSET', instance, 'sequence', sequence, unpack(ARGV, first_field))
redis.call('HSETNX', instance, 'started_at_ms', now)
redis.call('HSET', connections, id, own_connections)
redis.call('HDEL', gone, id)
return {1, now}
