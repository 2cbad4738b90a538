-- Add a numbered batch of what an instance has counted to the minute in which it arrives, once, however often it is sent.
-- KEYS: instances, instance:{id}, minutes, series, then minute:{minute} of each of two minutes
-- ARGV: id, number of the batch, the first of the two minutes, when the first of the batch was counted in ms, lifetime of a minute in s,
--       lifetime of the series in s, number of series that are kept, what the series beyond those are called, number of series n,
--       n * (name, number of counters m, m * (counter, by how much it has grown))
-- Returns: {1, now in ms}; {0, now} when it was added before; {-1, now} when the instance is not registered;
--          {-2, now} when now is in neither of the two minutes
local instances, instance, minutes, series = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, number, first_minute, since, minute_seconds = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local series_seconds, series_kept, other, count = ARGV[6], tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
local late_after_ms = 60000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', instances, id) then
  return {-1, now}
end
local seen = redis.call('HGET', instance, 'batch')
if seen and tonumber(seen) >= tonumber(number) then
  return {0, now}
end
local minute = math.floor(now / 60000)
if minute ~= first_minute and minute ~= first_minute + 1 then
  return {-2, now}
end
local key = KEYS[5 + minute - first_minute]
redis.call('HSET', instance, 'batch', number)

local at = 10
for _ = 1, count do
  local name, counters = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  -- Another program's key costs the history, and not the heartbeat: hence pcall.
  local known = redis.pcall('ZSCORE', series, name)
  if not known then
    local kept = redis.pcall('ZCARD', series)
    if type(kept) == 'number' and kept >= series_kept then
      name = other
    end
  end
  redis.pcall('ZADD', series, minute, name)
  for _ = 1, counters do
    local counter, grown = ARGV[at], ARGV[at + 1]
    at = at + 2
    local field = counter .. name
    if counter == 'rmax' or counter == 'wmax' then
      local longest = redis.pcall('HGET', key, field)
      if type(longest) ~= 'string' or tonumber(longest) < tonumber(grown) then
        redis.pcall('HSET', key, field, grown)
      end
    else
      redis.pcall('HINCRBY', key, field, grown)
    end
  end
  if now - since > late_after_ms then
    redis.pcall('HINCRBY', key, 'late' .. name, 1)
  end
end
redis.pcall('EXPIRE', key, minute_seconds)
redis.pcall('ZADD', minutes, minute, minute)
redis.pcall('EXPIRE', minutes, minute_seconds)
redis.pcall('EXPIRE', series, series_seconds)
return {1, now}
