-- Give one message of a dead broker back to its queue: at once, or later by way of its delay queue. Once, however often it is called.
-- One whose worker died while it aborted it goes to the dead letters instead, where dramatiq puts what it does not try again.
-- KEYS: acks of the broker and queue, the queue, its messages, its delay queue, the messages of that, its dead letters,
--       the messages of these, receipt of this release, receipt:abort:{claim}
-- ARGV: message id in Redis, the message as it is put off or '' for at once, lifetime of the receipt in ms
-- Returns: 'released' or 'aborted' (now, or before, which the receipt says), 'quarantined' when that is what the receipt is of,
--          'taken' when the broker does not hold it any more, 'ended' when the message is gone
local acks, queue, messages, delay_queue, delayed_messages = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local dead_letters, dead_messages, receipt, abort = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local id, put_off, receipt_ms = ARGV[1], ARGV[2], ARGV[3]

if redis.call('EXISTS', receipt) == 1 then
  local kept = redis.pcall('HGET', receipt, 'payload') -- an error where the receipt is a text: that of a release
  return type(kept) == 'table' and redis.call('GET', receipt) or 'quarantined'
end
if redis.call('SREM', acks, id) == 0 then
  return 'taken'
end
if redis.call('HEXISTS', messages, id) == 0 then
  return 'ended'
end
local result = 'released'
if redis.call('EXISTS', abort) == 1 then
  local time = redis.call('TIME')
  local message = redis.call('HGET', messages, id)
  redis.call('HDEL', messages, id)
  redis.call('ZADD', dead_letters, time[1] * 1000 + math.floor(time[2] / 1000), id)
  redis.call('HSET', dead_messages, id, message)
  redis.call('DEL', abort)
  result = 'aborted'
elseif put_off == '' then
  redis.call('RPUSH', queue, id)
else
  redis.call('HDEL', messages, id)
  redis.call('HSET', delayed_messages, id, put_off)
  redis.call('RPUSH', delay_queue, id)
end
redis.call('SET', receipt, result, 'PX', receipt_ms)
return result
