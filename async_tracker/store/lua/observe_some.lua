-- Read the evidence on some instances, at one moment. Nothing is changed.
-- KEYS: instances, connections, gone, watchdogs, dead, server
-- ARGV: id of each instance, at most some hundreds
-- Returns: {now in ms, noted run id of the server, since when in ms it is this one or -1, then of each instance its heartbeat,
--           its connections, since when they are gone, the word of its watchdog, since when it is dead; '' for what there is not}
local instances, connections, gone, watchdogs, dead, server = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

local time = redis.call('TIME')
local noted = redis.call('HMGET', server, 'run_id', 'since_ms')
local found = {time[1] * 1000 + math.floor(time[2] / 1000), noted[1] or '', noted[2] or '-1'}
local at = 3
for _, id in ipairs(ARGV) do
  found[at + 1] = redis.call('ZSCORE', instances, id) or ''
  found[at + 2] = redis.call('HGET', connections, id) or ''
  found[at + 3] = redis.call('HGET', gone, id) or ''
  found[at + 4] = redis.call('ZSCORE', watchdogs, id) or ''
  found[at + 5] = redis.call('ZSCORE', dead, id) or ''
  at = at + 5
end
return found
