-- One heartbeat: renew the instance, its changing fields, its connections if they changed; and add a numbered batch of its counters.
-- A batch is added only after the one that comes before it, so it counts once however often it is sent, and none is left out: the answer
-- tells which is the newest, from which an instance knows what a server that has lost its newest writes must be told again.
-- KEYS: instances, instance:{id}, connections, gone, watchdogs, stats, changed, lease:sweep:{library}
-- ARGV: id, sequence number, connections as JSON or '' when unchanged, lifetime of the stats in s, lifetime of the changes in s,
--       number of counters in the stats from which on a new function has none of its own, how the counters of all these are called up to
--       the counter's name, number of fields n, n * (field, value), then, with a batch: number of the one before it or 0, its number, and
--       pairs of counter and by how much it has grown
-- Returns: {1, now in ms, its open orders, number of instances, 1 when an instance holds the lease else 0, number of its newest batch or 0};
--          {0, now, '', 0, 1, '0'} when a newer write was seen; {-1, now, '', 0, 1, '0'} when it is not registered
local instances, instance, connections, gone, watchdogs, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local changed, lease = KEYS[7], KEYS[8]
local id, sequence, changed_connections, stats_seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local changed_seconds, stats_kept, others, fields = ARGV[5], tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', instances, id) then
  return {-1, now, '', 0, 1, '0'}
end
local seen, orders, newest = unpack(redis.call('HMGET', instance, 'sequence', 'orders', 'totals'))
if seen and tonumber(seen) >= tonumber(sequence) then
  return {0, now, '', 0, 1, '0'}
end
redis.call('ZADD', instances, 'XX', now, id)
local first_field = 9
local after_fields = first_field + 2 * fields
redis.call('HSET', instance, 'sequence', sequence, unpack(ARGV, first_field, after_fields - 1))
if changed_connections ~= '' then
  redis.call('HSET', connections, id, changed_connections)
  redis.call('HDEL', gone, id)
  redis.pcall('ZADD', changed, now, id) -- another program's key costs sweepers the list of changes, and nothing else
  redis.pcall('EXPIRE', changed, changed_seconds)
end
redis.call('ZREM', watchdogs, id)
newest = newest or '0'
local before, number = ARGV[after_fields], ARGV[after_fields + 1]
if number and before == newest then
  -- Another program's key of that name costs the counters, not the heartbeat: hence pcall.
  local kept = redis.pcall('HLEN', stats)
  local is_full = type(kept) == 'number' and kept >= stats_kept
  for i = after_fields + 2, #ARGV, 2 do
    local counter = ARGV[i]
    if is_full and not redis.pcall('HGET', stats, counter) then
      local pair, name = string.match(counter, '^(.*,)("[^"]*"%])$')
      if pair and not redis.pcall('HGET', stats, pair .. '"started"]') then
        counter = others .. name
      end
    end
    redis.pcall('HINCRBY', stats, counter, ARGV[i + 1])
  end
  redis.call('EXPIRE', stats, stats_seconds)
  redis.call('HSET', instance, 'totals', number)
  newest = number
end
return {1, now, orders or '', redis.call('ZCARD', instances), redis.call('EXISTS', lease), newest}
