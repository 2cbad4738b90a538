-- An hour is rolled up: keep its sample among those of its day, forget that it is still to be done, and which series are over.
-- KEYS: hours, samples:{span}, samples:{span}, series
-- ARGV: the hour, its place in the day, its sample or '' where it has none, lifetime of that in s, lifetime of the minutes' samples in s,
--       the minute from which on a series is kept
-- Returns: 1 when it was still to be done, else 0
local hours, samples, samples_day, series = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local hour, place, sample, sample_seconds, minutes_seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local kept_from = tonumber(ARGV[6])
local series_at_once = 200

if sample ~= '' then
  redis.pcall('HSETNX', samples_day, place, sample) -- another program's key costs the sample, and not the hour
  redis.call('EXPIRE', samples_day, sample_seconds)
end
redis.call('EXPIRE', samples, minutes_seconds)
local oldest = redis.call('ZRANGE', series, 0, series_at_once - 1, 'WITHSCORES')
for i = 1, #oldest, 2 do
  if tonumber(oldest[i + 1]) < kept_from then
    redis.call('ZREM', series, oldest[i])
  end
end
return redis.call('ZREM', hours, hour)
