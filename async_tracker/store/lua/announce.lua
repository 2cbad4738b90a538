-- Announce an orphan that no sweeper recovers yet, once: its recovery, if there ever is one, will not announce it again.
-- KEYS: dead, settled:{id}, told:{id}, events, stats
-- ARGV: id, job id, token of the run, length of the stream, lifetime of the stream in s, lifetime of the stats in s, event as JSON, counter
-- Returns: 1 when it was announced now, 0 when it had been before, when it was settled, or when the instance is not dead; an error
--          that names a key when it is of another type
local dead, settled, told, events, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, job, token, events_kept, events_seconds, stats_seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local event, counter = ARGV[7], ARGV[8]

-- Redis undoes nothing of a script that it refuses half-way, so what may be of another type is looked at before anything is changed.
for _, look in ipairs({ {'HGET', settled, ''}, {'SCARD', told} }) do
  local found = redis.pcall(unpack(look))
  if type(found) == 'table' and found.err then
    return redis.error_reply(found.err .. ' (' .. look[2] .. ')')
  end
end
if not redis.call('ZSCORE', dead, id) or redis.call('HGET', settled, token) or redis.call('SADD', told, job) == 0 then
  return 0
end
redis.pcall('XADD', events, 'MAXLEN', '~', events_kept, '*', 'event', event)
redis.call('EXPIRE', events, events_seconds)
redis.pcall('HINCRBY', stats, counter, 1)
redis.call('EXPIRE', stats, stats_seconds)
return 1
