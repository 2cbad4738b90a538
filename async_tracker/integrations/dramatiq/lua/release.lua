-- Give one message of a dead broker back to its queue: at once, or later by way of its delay queue. Once, however often it is called.
-- KEYS: acks of the broker and queue, the queue, its messages, its delay queue, the messages of that, receipt of this release
-- ARGV: message id in Redis, the message as it is put off or '' for at once, lifetime of the receipt in ms
-- Returns: 'released' (now, or before, which the receipt says), 'quarantined' when that is what the receipt is of,
--          'taken' when the broker does not hold it any more, 'ended' when the message is gone
local acks, queue, messages, delay_queue, delayed_messages, receipt = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, put_off, receipt_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call('EXISTS', receipt) == 1 then
  local kept = redis.pcall('HGET', receipt, 'payload') -- an error where the receipt is a text: that of a release
  return type(kept) == 'table' and 'released' or 'quarantined'
end
if redis.call('SREM', acks, id) == 0 then
  return 'taken'
end
if redis.call('HEXISTS', messages, id) == 0 then
  return 'ended'
end
if put_off == '' then
  redis.call('RPUSH', queue, id)
else
  redis.call('HDEL', messages, id)
  redis.call('HSET', delayed_messages, id, put_off)
  redis.call('RPUSH', delay_queue, id)
end
redis.call('SET', receipt, 'released', 'PX', receipt_ms)
return 'released'
