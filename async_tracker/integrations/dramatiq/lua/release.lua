-- Give one message of a dead broker back to its queue: at once, or later by way of its delay queue. Once, whoever calls and how often.
-- KEYS: acks of the broker and queue, the queue, its messages, its delay queue, the messages of that, receipt of this release
-- ARGV: message id in Redis, the message as it is put off or '' for at once, lifetime of the receipt in ms
-- Returns: 'released' (now, or before by whoever left the receipt), 'quarantined' when that is what the receipt is of,
--          'taken' when the broker does not hold it any more, 'ended' when the message is gone
if redis.call('EXISTS', KEYS[6]) == 1 then
  local kept = redis.pcall('HGET', KEYS[6], 'payload') -- an error where the receipt is a text: that of a release
  return type(kept) == 'table' and 'released' or 'quarantined'
end
if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then
  return 'taken'
end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then
  return 'ended'
end
if ARGV[2] == '' then
  redis.call('RPUSH', KEYS[2], ARGV[1])
else
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('HSET', KEYS[5], ARGV[1], ARGV[2])
  redis.call('RPUSH', KEYS[4], ARGV[1])
end
redis.call('SET', KEYS[6], 'released', 'PX', ARGV[3])
return 'released'
