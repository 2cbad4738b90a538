-- Close the book on one orphan: forget its record, count its death, tell everybody. Once, whoever calls and how often.
-- KEYS: dead, jobs:{id}, job:{job}, recoveries:{job}, events, stats, stats:minute:{m}, quarantine, quarantined:{job},
--       orphans:{id}, settled:{id}, told:{id}
-- ARGV: id, job id, run, 1 when this death counts, lifetime of the count in ms, length of the stream,
--       number of events e, number of counters c, e * event as JSON, c * counter,
--       then field and value pairs of the quarantined job (none: it is not quarantined)
--       The first event and the first counter say that it was orphaned: left out where that was told before.
-- Returns: 1 when it was settled now, 2 when it was and its orphaning had been told, 0 when it had been settled before
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('SREM', KEYS[2], ARGV[2]) == 0 then
  return 0
end
redis.call('HDEL', KEYS[10], ARGV[2])
local told = redis.call('SREM', KEYS[12], ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[11], ARGV[3], now) -- or a sweeper that comes late would take it for an orphan again
local standing = redis.pcall('GET', KEYS[3]) -- what is of another type is no record of ours
if type(standing) == 'string' and string.find(standing, '"run":"' .. ARGV[3] .. '"', 1, true) then
  redis.call('DEL', KEYS[3])
end
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[4], ARGV[3], now)
  redis.call('PEXPIRE', KEYS[4], ARGV[5])
end
local events, counters = tonumber(ARGV[7]), tonumber(ARGV[8])
if #ARGV > 8 + events + counters then
  redis.call('ZADD', KEYS[8], now, ARGV[2])
  redis.call('HSET', KEYS[9], 'quarantined_at_ms', now, unpack(ARGV, 9 + events + counters))
  redis.call('DEL', KEYS[4])
end
-- The rest is for the record. A key of another type there must not keep an orphan, or a payload, from its place.
for i = 9 + told, 8 + events do
  redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', ARGV[6], '*', 'event', ARGV[i])
  redis.call('EXPIRE', KEYS[5], 2592000)
end
for i = 9 + events + told, 8 + events + counters do
  redis.pcall('HINCRBY', KEYS[6], ARGV[i], 1)
  redis.pcall('HINCRBY', KEYS[7], ARGV[i], 1)
end
if counters > 0 then
  redis.call('EXPIRE', KEYS[6], 2592000)
  redis.call('EXPIRE', KEYS[7], 86400)
end
return 1 + told
