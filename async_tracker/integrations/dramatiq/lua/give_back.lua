-- Give messages that a dead broker had only fetched back to their queue. A message that was acknowledged is not held, and not given.
-- KEYS: acks of the broker and queue, the queue, its messages
-- ARGV: message ids in Redis
-- Returns: number of messages that are queued again
local given = 0
for i = 1, #ARGV do
  if redis.call('SREM', KEYS[1], ARGV[i]) == 1 and redis.call('HEXISTS', KEYS[3], ARGV[i]) == 1 then
    redis.call('RPUSH', KEYS[2], ARGV[i])
    given = given + 1
  end
end
return given
