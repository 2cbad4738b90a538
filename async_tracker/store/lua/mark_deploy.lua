-- An instance of a version is here: if that version is new, or is back after another one, that is a deploy, and an event.
-- KEYS: versions, deploys, events
-- ARGV: the version, for how many ms it must have been away to be back, number of versions and of deploys that are kept, lifetime of
--       both in s, number of events that are kept, lifetime of the events in s, the event
-- Returns: 1 when it is a deploy, else 0
local versions, deploys, events = KEYS[1], KEYS[2], KEYS[3]
local version, away_ms, kept, lifetime = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local events_kept, events_seconds, event = ARGV[5], ARGV[6], ARGV[7]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local seen = redis.call('ZSCORE', versions, version)
local is_deploy = not seen
if seen then
  local newest = redis.call('ZRANGE', deploys, -1, -1)[1]
  is_deploy = newest ~= nil and string.match(newest, '^%d+:(.*)$') ~= version and now - tonumber(seen) > away_ms
end
redis.call('ZADD', versions, now, version)
redis.call('EXPIRE', versions, lifetime)
for _, oldest in ipairs(redis.call('ZRANGE', versions, 0, -kept - 1)) do
  redis.call('ZREM', versions, oldest)
end
if not is_deploy then
  return 0
end
redis.call('ZADD', deploys, now, now .. ':' .. version)
redis.call('EXPIRE', deploys, lifetime)
for _, oldest in ipairs(redis.call('ZRANGE', deploys, 0, -kept - 1)) do
  redis.call('ZREM', deploys, oldest)
end
redis.call('XADD', events, 'MAXLEN', '~', events_kept, '*', 'event', event)
redis.call('EXPIRE', events, events_seconds)
return 1
