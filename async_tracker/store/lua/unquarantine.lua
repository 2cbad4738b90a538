-- Take a job off the quarantine list and forget how often it died.
-- KEYS: quarantine, quarantined:{job}, recoveries:{job}, events
-- ARGV: job id, length of the stream, event as JSON
-- Returns: 1 when it was listed, else 0
local listed = redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3])
if listed == 1 then
  redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', ARGV[2], '*', 'event', ARGV[3])
  redis.call('EXPIRE', KEYS[4], 2592000)
end
return listed
