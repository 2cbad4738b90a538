-- What the journal gathered: runs that are in flight and runs that have ended, in one step.
-- A record is only replaced by a run that started later, and only removed by the run that wrote it, so the end of an
-- older run never erases a newer one.
-- KEYS: instances, instance:{id}, jobs:{id}, then job:{job} of each run in flight, then job:{job} of each ended run
-- ARGV: id, sequence number, number of runs in flight n, number of ended runs m,
--       n * (job id, run, started at in ms, record),
--       m * (job id, mark that the record carries when it is that run's, 1 when no other run of that job is in flight here)
-- Returns: {1, now in ms}; {0, now} when a newer write was seen; {-1, now} when the instance is not registered
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {-1, now}
end
local seen = redis.call('HGET', KEYS[2], 'sequence')
if seen and tonumber(seen) >= tonumber(ARGV[2]) then
  return {0, now}
end
redis.call('HSET', KEYS[2], 'sequence', ARGV[2])
local started, ended = tonumber(ARGV[3]), tonumber(ARGV[4])
local function record_at(key)
  local standing = redis.pcall('GET', key)
  return type(standing) == 'string' and standing -- what is of another type is no record of ours
end
local at = 5
for i = 1, started do
  local key = KEYS[3 + i]
  local job, run, since, record = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  at = at + 4
  redis.call('SADD', KEYS[3], job)
  local standing = record_at(key)
  local newer = false
  if standing and not string.find(standing, '"run":"' .. run .. '"', 1, true) then
    newer = (tonumber(string.match(standing, '"started_at_ms":(%d+)')) or 0) > since
  end
  if not newer then
    redis.call('SET', key, record)
  end
end
for i = 1, ended do
  local key = KEYS[3 + started + i]
  local standing = record_at(key)
  if standing and string.find(standing, ARGV[at + 1], 1, true) then
    redis.call('DEL', key)
  end
  if ARGV[at + 2] == '1' then
    redis.call('SREM', KEYS[3], ARGV[at])
  end
  at = at + 3
end
return {1, now}
