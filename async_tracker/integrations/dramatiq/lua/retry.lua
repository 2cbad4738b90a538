-- Put a quarantined message back into its queue, unless it is there. Once, however often it is called.
-- KEYS: the queue, its messages, receipt of its quarantine
-- ARGV: message id in Redis, message, lifetime of the receipt in ms
-- Returns: 1 when it is queued, or was by an earlier call; 0 when it was there
local queue, messages, receipt = KEYS[1], KEYS[2], KEYS[3]
local id, message, receipt_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HGET', receipt, 'retried') then
  return 1
end
if redis.call('HSETNX', messages, id, message) == 0 then
  return 0
end
redis.call('RPUSH', queue, id)
redis.call('HSET', receipt, 'retried', 1)
redis.call('PEXPIRE', receipt, receipt_ms)
return 1
