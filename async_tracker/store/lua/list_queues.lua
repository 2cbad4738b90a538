-- List the queues that instances work on, as one who knows all instances has found them at one moment. What was said later stays.
-- The list of hosts is renewed with it.
-- KEYS: queues, hosts
-- ARGV: that moment in ms, lifetime of the list in s, lifetime of the list of hosts in s, then the queues, each as JSON
-- Returns: how many were taken off the list
local queues, hosts = KEYS[1], KEYS[2]
local moment, queues_seconds, hosts_seconds = ARGV[1], ARGV[2], ARGV[3]

-- Another program's key of that name costs this list, and not the sweep: hence pcall.
redis.call('EXPIRE', hosts, hosts_seconds)
redis.pcall('ZADD', queues, 'GT', moment, '')
for i = 4, #ARGV do
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
