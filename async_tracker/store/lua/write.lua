-- Write what the journal gathered: runs that are in flight and runs that have ended, in one step.
-- A record is only replaced by a run that started later, and only removed by the run that wrote it, so the end of an
-- older run never erases a newer one.
-- KEYS: instances, instance:{id}, jobs:{id}, then job:{job} of each run in flight, then job:{job} of each ended run
-- ARGV: id, sequence number, what stands before the start of a run in its record, number of runs in flight n, number of ended runs m,
--       n * (job id, mark of that run's record, started at in ms, record),
--       m * (job id, mark of that run's record, 1 when no other run of that job is in flight here)
-- Returns: {1, now in ms, its open orders}; {0, now, ''} when a newer write was seen; {-1, now, ''} when the instance is not registered;
--          an error that names a key when it is of another type
local instances, instance, jobs = KEYS[1], KEYS[2], KEYS[3]
local id, sequence, before_start, started, ended = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', instances, id) then
  return {-1, now, ''}
end
local seen, orders = unpack(redis.call('HMGET', instance, 'sequence', 'orders'))
if seen and tonumber(seen) >= tonumber(sequence) then
  return {0, now, ''}
end
-- Redis undoes nothing of a script that it refuses half-way, so what may be of another type is looked at before anything is changed.
for _, look in ipairs({ {'SCARD', jobs} }) do
  local found = redis.pcall(unpack(look))
  if type(found) == 'table' and found.err then
    return redis.error_reply(found.err .. ' (' .. look[2] .. ')')
  end
end
redis.call('HSET', instance, 'sequence', sequence)

local function record_at(key)
  local standing = redis.pcall('GET', key)
  return type(standing) == 'string' and standing -- a value of another type is no record of ours
end

local function start_of(record)
  local _, last = string.find(record, before_start, 1, true)
  return last and tonumber(string.match(record, '^%d+', last + 1)) or 0
end

local first_key, at = 4, 6
for i = 0, started - 1 do
  local key = KEYS[first_key + i]
  local job, mark, since, record = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  at = at + 4
  redis.call('SADD', jobs, job)
  local standing = record_at(key)
  local is_of_another_run = standing and not string.find(standing, mark, 1, true)
  if not is_of_another_run or start_of(standing) <= since then
    redis.call('SET', key, record)
  end
end
for i = 0, ended - 1 do
  local key = KEYS[first_key + started + i]
  local job, mark, is_last_here = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  local standing = record_at(key)
  if standing and string.find(standing, mark, 1, true) then
    redis.call('DEL', key)
  end
  if is_last_here == '1' then
    redis.call('SREM', jobs, job)
  end
end
return {1, now, orders or ''}
