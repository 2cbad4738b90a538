-- Put a quarantined message back into its queue, unless it is there.
-- KEYS: the queue, its messages
-- ARGV: message id in Redis, message
-- Returns: 1 when it is queued, 0 when it was there
if redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('RPUSH', KEYS[1], ARGV[1])
return 1
