-- Take a poison pill out of dramatiq: message copied, then deleted, and no longer held.
-- KEYS: acks of the broker and queue, messages of the queue, receipt, receipt:abort:{claim}
-- ARGV: message id in Redis, lifetime of the receipt in ms
-- Returns: the message, now or from the receipt; nil when the broker does not hold it any more, when it was released before,
--          or was being aborted
local acks, messages, receipt, abort = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, receipt_ms = ARGV[1], ARGV[2]

local kept = redis.pcall('HGET', receipt, 'payload')
if type(kept) == 'table' then -- an error: the receipt is a text, that of a release
  return nil
end
if kept then
  return kept
end
if redis.call('EXISTS', abort) == 1 then
  return nil
end
local message = redis.call('HGET', messages, id)
if not message or redis.call('SREM', acks, id) == 0 then
  return nil
end
redis.call('HDEL', messages, id)
redis.call('HSET', receipt, 'payload', message)
redis.call('PEXPIRE', receipt, receipt_ms)
return message
