-- Put a quarantined message back into its queue, unless it is there. Once, however often.
-- KEYS: the queue, its messages, receipt of its quarantine
-- ARGV: message id in Redis, message, lifetime of the receipt in ms
-- Returns: 1 when it is queued, or was by an earlier call; 0 when it was there
if redis.call('HGET', KEYS[3], 'retried') then
  return 1
end
if redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[3], 'retried', 1)
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
