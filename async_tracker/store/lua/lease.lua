-- Take, renew or keep the lease of the sweeper; take it over only from the holder that was seen gone.
-- KEYS: lease:sweep:{library}, instances
-- ARGV: own holder text, lifetime in ms, the holder that may be replaced or ''
-- Returns: {1 when it is ours now, else 0, the holder, number of instances}
local lease, instances = KEYS[1], KEYS[2]
local own, lifetime_ms, replaced = ARGV[1], ARGV[2], ARGV[3]

local holder = redis.call('GET', lease)
if not holder or holder == own or (replaced ~= '' and holder == replaced) then
  redis.call('SET', lease, own, 'PX', lifetime_ms)
  return {1, own, redis.call('ZCARD', instances)}
end
return {0, holder, redis.call('ZCARD', instances)}
