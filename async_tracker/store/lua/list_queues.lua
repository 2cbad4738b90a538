-- List the queues that instances work on, as one who knows all instances has found them at one moment. What was said later stays.
-- The list of hosts is renewed with it, and where it names more instances than are registered, some of its entries are looked at: an
-- older version registers and buries instances without it.
-- KEYS: queues, hosts, instances
-- ARGV: that moment in ms, lifetime of the list in s, lifetime of the list of hosts in s, how many of its entries are looked at at most,
--       then the queues, each as JSON
-- Returns: how many were taken off the list
local queues, hosts, instances = KEYS[1], KEYS[2], KEYS[3]
local moment, queues_seconds, hosts_seconds, looked_at = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

-- Another program's key of such a name costs its list, and not the sweep: hence pcall.
local listed = redis.pcall('ZCARD', hosts)
if type(listed) == 'number' then
  redis.call('EXPIRE', hosts, hosts_seconds)
end
if type(listed) == 'number' and listed > redis.call('ZCARD', instances) then
  local first = math.floor(moment / 60000) * looked_at % listed -- others in each minute
  for _, entry in ipairs(redis.call('ZRANGE', hosts, first, first + looked_at - 1)) do
    local id = string.match(entry, '^[^ ]* (.*)$')
    if not id or not redis.call('ZSCORE', instances, id) then
      redis.call('ZREM', hosts, entry)
    end
  end
end
redis.pcall('ZADD', queues, 'GT', moment, '')
for i = 5, #ARGV do
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
