-- Make an instance known, or known again after its registration was lost with the server's data.
-- KEYS: instances, instance:{id}, connections, gone, tombstone:{id}, queues, standing, changed, hosts
-- ARGV: id, sequence number, its connections as JSON, its queues as JSON or '' for none, lifetime of the queues in s,
--       lifetime of the changes in s, host id, lifetime of the hosts in s, number of scopes n, n scopes of standing orders that it is in,
--       then field and value pairs of its hash
-- Returns: {1, now in ms, standing orders for it}; {0, now, ''} when a newer write was seen; {-1, now, ''} when it was declared dead
--          and must take a new id
local instances, instance, connections, gone, tombstone, queues = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local standing, changed, hosts = KEYS[7], KEYS[8], KEYS[9]
local id, sequence, own_connections, own_queues, queues_seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local changed_seconds, host_id, hosts_seconds, scopes = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', tombstone) == 1 then
  return {-1, now, ''}
end
local seen = redis.call('HGET', instance, 'sequence')
if seen and tonumber(seen) >= tonumber(sequence) then
  return {0, now, ''}
end
redis.call('ZADD', instances, now, id)
local first_scope = 10
local first_field = first_scope + scopes
redis.call('HSET', instance, 'sequence', sequence, unpack(ARGV, first_field))
redis.call('HSETNX', instance, 'started_at_ms', now)
redis.call('HSET', connections, id, own_connections)
redis.call('HDEL', gone, id)
redis.pcall('ZADD', changed, now, id) -- another program's key costs sweepers the list of changes, and nothing else
redis.pcall('EXPIRE', changed, changed_seconds)
redis.pcall('ZADD', hosts, 0, host_id .. ' ' .. id) -- another program's key costs probes the short way, and nothing else
redis.pcall('EXPIRE', hosts, hosts_seconds)
if own_queues ~= '' then -- another program's key of that name costs this list, and not the registration: hence pcall
  redis.pcall('ZADD', queues, now, own_queues)
  redis.call('EXPIRE', queues, queues_seconds)
end
local orders = {}
for i = first_scope, first_field - 1 do
  local line = redis.pcall('HGET', standing, ARGV[i]) -- of another type, it holds no order
  if type(line) == 'string' and (tonumber(string.match(line, '^%S+ (%d+) ')) or 0) > now then
    orders[#orders + 1] = line
  end
end
return {1, now, table.concat(orders, '\n')}
