-- Give messages that a dead broker had only fetched back to their queue. A message that was acknowledged is not held, and not given.
-- KEYS: acks of the broker and queue, the queue, its messages
-- ARGV: message ids in Redis
-- Returns: number of messages that are queued again
local acks, queue, messages = KEYS[1], KEYS[2], KEYS[3]

local given = 0
for _, id in ipairs(ARGV) do
  if redis.call('SREM', acks, id) == 1 and redis.call('HEXISTS', messages, id) == 1 then
    redis.call('RPUSH', queue, id)
    given = given + 1
  end
end
return given
