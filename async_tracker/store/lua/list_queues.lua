-- List the queues that instances work on, as one who knows all instances has found them at one moment. What was said later stays.
-- KEYS: queues
-- ARGV: that moment in ms, lifetime of the list in s, then the queues, each as JSON
-- Returns: how many were taken off the list
local queues = KEYS[1]
local moment, queues_seconds = ARGV[1], ARGV[2]

-- Another program's key of that name costs this list, and not the sweep: hence pcall.
redis.pcall('ZADD', queues, 'GT', moment, '')
for i = 3, #ARGV do
  redis.pcall('ZADD', queues, 'GT', moment, ARGV[i])
end
local left = redis.pcall('ZRANGE', queues, '-inf', '(' .. moment, 'BYSCORE')
if left.err then
  return 0
end
for _, name in ipairs(left) do
  redis.call('ZREM', queues, name)
end
redis.call('EXPIRE', queues, queues_seconds)
return #left
