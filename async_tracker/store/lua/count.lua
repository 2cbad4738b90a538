-- Add a numbered batch of what an instance has counted to the minute in which it arrives, once, however often it is sent; and its
-- durations to those of all time, in fewer buckets.
-- KEYS: instances, instance:{id}, minutes, series, minute:{minute} of each of two minutes, total:{pair} of each series and of the rest
-- ARGV: id, number of the batch, the first of the two minutes, when the first of the batch was counted in ms, lifetime of a minute in s,
--       lifetime of the series in s, number of series that are kept, what the series beyond those are called, the buckets that bound
--       those of all time, joined by commas, number of series n, n * (name, number of counters m, m * (counter, by how much it has grown))
-- Returns: {1, now in ms}; {0, now} when it was added before; {-1, now} when the instance is not registered;
--          {-2, now} when now is in neither of the two minutes
local instances, instance, minutes, series = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, number, first_minute, since, minute_seconds = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local series_seconds, series_kept, other, bounds_joined, count = ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], tonumber(ARGV[10])
local late_after_ms = 60000
local first_total = 7

local bounds = {}
for bound in string.gmatch(bounds_joined, '%d+') do
  bounds[#bounds + 1] = tonumber(bound)
end

-- The field of the durations of all time in which a counter of a minute counts; nil where it counts in none.
local function field_of_total(counter)
  if counter == 'run_ms' or counter == 'wait_ms' then
    return counter
  end
  local kind, bucket = string.match(counter, '^([rw])(%d+)$')
  if not kind then
    return nil
  end
  for _, bound in ipairs(bounds) do
    if tonumber(bucket) <= bound then
      return kind .. bound
    end
  end
  return kind .. 'inf'
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', instances, id) then
  return {-1, now}
end
local seen = redis.call('HGET', instance, 'batch')
if seen and tonumber(seen) >= tonumber(number) then
  return {0, now}
end
local number_of_minute = math.floor(now / 60000)
if number_of_minute ~= first_minute and number_of_minute ~= first_minute + 1 then
  return {-2, now}
end
local minute = KEYS[5 + number_of_minute - first_minute]
redis.call('HSET', instance, 'batch', number)

local at = 11
for i = 1, count do
  local name, counters = ARGV[at], tonumber(ARGV[at + 1])
  local total = KEYS[first_total + i - 1]
  at = at + 2
  -- Another program's key costs the history, and not the heartbeat: hence pcall.
  local known = redis.pcall('ZSCORE', series, name)
  if not known then
    local kept = redis.pcall('ZCARD', series)
    if type(kept) == 'number' and kept >= series_kept then
      name, total = other, KEYS[first_total + count]
    end
  end
  redis.pcall('ZADD', series, number_of_minute, name)
  local durations = {}
  for _ = 1, counters do
    local counter, grown = ARGV[at], ARGV[at + 1]
    local of_total = field_of_total(counter)
    if of_total then
      durations[of_total] = (durations[of_total] or 0) + tonumber(grown)
    end
    at = at + 2
    local field = counter .. name
    if counter == 'rmax' or counter == 'wmax' then
      local longest = redis.pcall('HGET', minute, field)
      if type(longest) ~= 'string' or tonumber(longest) < tonumber(grown) then
        redis.pcall('HSET', minute, field, grown)
      end
    else
      redis.pcall('HINCRBY', minute, field, grown)
    end
  end
  if next(durations) then
    redis.pcall('HSETNX', total, 'since_ms', now)
    for field, grown in pairs(durations) do
      redis.pcall('HINCRBY', total, field, grown)
    end
    redis.pcall('EXPIRE', total, series_seconds)
  end
  if now - since > late_after_ms then
    redis.pcall('HINCRBY', minute, 'late' .. name, 1)
  end
end
redis.pcall('EXPIRE', minute, minute_seconds)
redis.pcall('ZADD', minutes, number_of_minute, number_of_minute)
redis.pcall('EXPIRE', minutes, minute_seconds)
redis.pcall('EXPIRE', series, series_seconds)
return {1, now}
