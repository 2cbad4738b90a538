-- Take a poison pill out of dramatiq: message copied, then deleted, and no longer held.
-- KEYS: acks of the broker and queue, messages of the queue, receipt
-- ARGV: message id in Redis, lifetime of the receipt in ms
-- Returns: the message, now or from the receipt; nil when the broker does not hold it any more, or when it was released before
local kept = redis.pcall('HGET', KEYS[3], 'payload')
if type(kept) == 'table' then -- an error: the receipt is a text, that of a release
  return nil
end
if kept then
  return kept
end
local message = redis.call('HGET', KEYS[2], ARGV[1])
if not message or redis.call('SREM', KEYS[1], ARGV[1]) == 0 then
  return nil
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[3], 'payload', message)
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return message
