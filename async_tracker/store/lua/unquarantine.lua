-- Take a job off the quarantine list and forget how often it died.
-- KEYS: quarantine, quarantined:{job}, recoveries:{job}, events
-- ARGV: job id, length of the stream, lifetime of the stream in s, event as JSON
-- Returns: 1 when it was listed, else 0
local quarantine, quarantined, recoveries, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local job, events_kept, events_seconds, event = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local listed = redis.call('ZREM', quarantine, job)
redis.call('DEL', quarantined, recoveries)
if listed == 1 then
  redis.pcall('XADD', events, 'MAXLEN', '~', events_kept, '*', 'event', event)
  redis.call('EXPIRE', events, events_seconds)
end
return listed
