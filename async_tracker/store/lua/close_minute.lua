-- Forget the counters of a minute that are packed; its hour is to be rolled up when it is over.
-- KEYS: minutes, minute:{minute}, hours
-- ARGV: the minute, its hour, lifetime of the hours in s
-- Returns: 1 when it was there, else 0
local minutes, counters, hours = KEYS[1], KEYS[2], KEYS[3]
local minute, hour, lifetime = ARGV[1], ARGV[2], ARGV[3]

redis.call('UNLINK', counters)
local was_open = redis.call('ZREM', minutes, minute)
if was_open == 1 then
  redis.call('ZADD', hours, hour, hour)
  redis.call('EXPIRE', hours, lifetime)
end
return was_open
