-- Tell everybody of an orphan that nobody recovers yet, once: its recovery, if there ever is one, will not tell it again.
-- KEYS: dead, settled:{id}, told:{id}, events, stats, stats:minute:{m}
-- ARGV: id, job id, run, length of the stream, event as JSON, counter
-- Returns: 1 when it was told now, 0 when it had been before, when it was settled, or when the instance is not dead
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('HGET', KEYS[2], ARGV[3]) or redis.call('SADD', KEYS[3], ARGV[2]) == 0 then
  return 0
end
redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', ARGV[4], '*', 'event', ARGV[5])
redis.call('EXPIRE', KEYS[4], 2592000)
redis.pcall('HINCRBY', KEYS[5], ARGV[6], 1)
redis.call('EXPIRE', KEYS[5], 2592000)
redis.pcall('HINCRBY', KEYS[6], ARGV[6], 1)
redis.call('EXPIRE', KEYS[6], 86400)
return 1
