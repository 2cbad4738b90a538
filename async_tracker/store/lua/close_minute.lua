-- Forget the counters of a minute that are packed.
-- KEYS: minutes, minute:{minute}
-- ARGV: the minute
-- Returns: 1 when it was there, else 0
local minutes, counters = KEYS[1], KEYS[2]
local minute = ARGV[1]

redis.call('UNLINK', counters)
return redis.call('ZREM', minutes, minute)
