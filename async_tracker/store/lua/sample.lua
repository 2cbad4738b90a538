-- Note how the fleet and its queues stand in one minute; the first sample of a minute and a library stands.
-- KEYS: samples:{hour}
-- ARGV: minute in the hour and library, the sample, lifetime in s
-- Returns: 1 when it was noted, else 0
local samples = KEYS[1]
local minute, sample, lifetime = ARGV[1], ARGV[2], ARGV[3]

local noted = redis.call('HSETNX', samples, minute, sample)
redis.call('EXPIRE', samples, lifetime)
return noted
