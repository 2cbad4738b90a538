-- Note how the fleet and its queues stand in one minute, and which versions are in it; the first sample of a minute and a library stands.
-- KEYS: samples:{span}, hours, versions
-- ARGV: minute in the hour and library, the sample, lifetime of all in s, the hour, the minute in ms, then the versions
-- Returns: 1 when it was noted, else 0
local samples, hours, versions = KEYS[1], KEYS[2], KEYS[3]
local minute, sample, lifetime, hour, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local first_version = 6

local noted = redis.call('HSETNX', samples, minute, sample)
if noted == 1 then
  redis.call('EXPIRE', samples, lifetime)
  redis.pcall('ZADD', hours, hour, hour)
  redis.pcall('EXPIRE', hours, lifetime)
  for i = first_version, #ARGV do
    redis.pcall('ZADD', versions, now, ARGV[i])
    redis.pcall('EXPIRE', versions, lifetime)
  end
end
return noted
