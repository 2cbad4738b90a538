-- Settle one orphan: forget its record, count its death, announce what became of it. Once, however often and by however many it is called.
-- KEYS: dead, jobs:{id}, job:{job}, recoveries:{job}, events, stats, quarantine, quarantined:{job},
--       orphans:{id}, settled:{id}, told:{id}
-- ARGV: id, job id, token of the run, mark of its record, 1 when this death counts, lifetime of the count in ms, length of the stream,
--       lifetime of the stream in s, lifetime of the stats in s, span of the run or '', number of events e, number of counters c,
--       e * event as JSON, c * counter, then field and value pairs of the quarantined job (none: it is not quarantined)
--       The first event and the first counter say that it was orphaned: they are left out where that was announced before.
-- Returns: 1 when it was settled now, 2 when it was and its orphaning had been announced, 0 when it had been settled before; an error that
--          names a key when it is of another type, and then nothing was changed
local dead, jobs, job_record, recoveries, events, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local quarantine, quarantined, orphans, settled, told = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local id, job, token, run_mark, counts, count_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local events_kept, events_seconds, stats_seconds = ARGV[7], ARGV[8], ARGV[9]
local traceparent, event_count, counter_count = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])

-- Redis undoes nothing of a script that it refuses half-way, so what may be of another type is looked at before anything is changed.
for _, look in ipairs({ {'SCARD', jobs}, {'HGET', orphans, ''}, {'HGET', settled, ''}, {'SCARD', told}, {'HGET', recoveries, ''},
  {'ZCARD', quarantine}, {'HGET', quarantined, ''} }) do
  local found = redis.pcall(unpack(look))
  if type(found) == 'table' and found.err then
    return redis.error_reply(found.err .. ' (' .. look[2] .. ')')
  end
end
if not redis.call('ZSCORE', dead, id) or redis.call('SREM', jobs, job) == 0 then
  return 0
end
redis.call('HDEL', orphans, job)
local announced = redis.call('SREM', told, job)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', settled, token, now) -- or a sweeper that comes late would take it for an orphan again
local standing = redis.pcall('GET', job_record) -- a value of another type is no record of ours
if type(standing) == 'string' and string.find(standing, run_mark, 1, true) then
  redis.call('DEL', job_record)
end
if counts == '1' then
  redis.call('HSET', recoveries, token, now)
  redis.call('PEXPIRE', recoveries, count_ms)
end
if traceparent ~= '' then
  redis.call('HSET', recoveries, 'traceparent', traceparent) -- no death is counted by it
  redis.call('PEXPIRE', recoveries, count_ms)
end
local first_event = 13
local first_counter = first_event + event_count
local first_field = first_counter + counter_count
if #ARGV >= first_field then
  redis.call('ZADD', quarantine, now, job)
  redis.call('HSET', quarantined, 'quarantined_at_ms', now, unpack(ARGV, first_field))
  redis.call('DEL', recoveries)
end
-- The rest only reports. A key of another type there must not keep an orphan, or a payload, from its place.
for i = first_event + announced, first_counter - 1 do
  redis.pcall('XADD', events, 'MAXLEN', '~', events_kept, '*', 'event', ARGV[i])
  redis.call('EXPIRE', events, events_seconds)
end
for i = first_counter + announced, first_field - 1 do
  redis.pcall('HINCRBY', stats, ARGV[i], 1)
end
if counter_count > 0 then
  redis.call('EXPIRE', stats, stats_seconds)
end
return 1 + announced
