-- Take, renew or keep the lease of the sweeper; take it over only from the holder that was seen gone.
-- KEYS: lease:sweep:{library}, instances
-- ARGV: own holder text, lifetime in ms, the holder that may be replaced or ''
-- Returns: {1 when it is ours now, else 0, the holder, number of instances}
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] or (ARGV[3] ~= '' and holder == ARGV[3]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {1, ARGV[1], redis.call('ZCARD', KEYS[2])}
end
return {0, holder, redis.call('ZCARD', KEYS[2])}
