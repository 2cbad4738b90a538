-- Give the sweeper's lease back, if it is still ours.
-- KEYS: lease:sweep:{library}
-- ARGV: own holder text
-- Returns: 1 when it was ours, else 0
local lease = KEYS[1]
local own = ARGV[1]

if redis.call('GET', lease) == own then
  return redis.call('DEL', lease)
end
return 0
