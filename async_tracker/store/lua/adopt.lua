-- Give a claim of a dead instance the record that its worker did not live to write.
-- KEYS: dead, jobs:{id}, job:{job}
-- ARGV: id, job id, run, record
-- Returns: 1 when it is an orphan now, 0 when the instance is not dead
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
redis.call('SADD', KEYS[2], ARGV[2])
local standing = redis.call('GET', KEYS[3])
if not standing or not string.find(standing, '"run":"' .. ARGV[3] .. '"', 1, true) then
  redis.call('SET', KEYS[3], ARGV[4])
end
return 1
