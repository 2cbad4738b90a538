-- Note how the fleet and its queues stand in one minute; the first sample of a minute and a library stands.
-- KEYS: samples:{span}, hours
-- ARGV: minute in the hour and library, the sample, lifetime of both in s until they are rolled up, the hour
-- Returns: 1 when it was noted, else 0
local samples, hours = KEYS[1], KEYS[2]
local minute, sample, lifetime, hour = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local noted = redis.call('HSETNX', samples, minute, sample)
if noted == 1 then
  redis.call('EXPIRE', samples, lifetime)
  redis.pcall('ZADD', hours, hour, hour)
  redis.pcall('EXPIRE', hours, lifetime)
end
return noted
