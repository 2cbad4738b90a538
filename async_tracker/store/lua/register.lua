-- Make an instance known, or known again after its registration was lost with the server's data.
-- KEYS: instances, instance:{id}, connections, gone, tombstone:{id}
-- ARGV: id, sequence number, its connections as JSON, then field and value pairs of its hash
-- Returns: {1, now in ms}; {0, now} when a newer write was seen; {-1, now} when it was declared dead and must take a new id
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', KEYS[5]) == 1 then
  return {-1, now}
end
local seen = redis.call('HGET', KEYS[2], 'sequence')
if seen and tonumber(seen) >= tonumber(ARGV[2]) then
  return {0, now}
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], 'sequence', ARGV[2], unpack(ARGV, 4))
redis.call('HSETNX', KEYS[2], 'started_at_ms', now)
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[4], ARGV[1])
return {1, now}
