-- List the queues that instances work on, as one who knows all instances has found them at one moment. What was said later stays.
-- The list of hosts is renewed with it, and where it names more instances than are registered, some of its entries are looked at: an
-- older version registers and buries instances without it. Events that are older than they are kept are taken out of the stream.
-- KEYS: queues, hosts, instances, events
-- ARGV: that moment in ms, lifetime of the list in s, lifetime of the list of hosts in s, how many of its entries are looked at at most,
--       the moment of the oldest event that is kept in ms, then the queues, each as JSON
-- Returns: how many were taken off the list
local queues, hosts, instances, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local moment, queues_seconds, hosts_seconds, looked_at, oldest = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

-- Another program's key of such a name costs its list, and not the sweep: hence pcall.
redis.pcall('XTRIM', events, 'MINID', oldest)
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
for i = 6, #ARGV do
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
