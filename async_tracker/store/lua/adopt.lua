-- Keep the orphans of a dead instance as they were found, those that it did not live to record included.
-- What is released runs again at once, and its new run takes the record's place: whoever carries on after a sweeper that died
-- in between finds here what that one was about.
-- KEYS: dead, jobs:{id}, orphans:{id}, then job:{job} of each orphan
-- ARGV: id, then job id, run and record of each orphan
-- Returns: 1 when they are orphans now, 0 when the instance is not dead
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
for i = 4, #KEYS do
  local at = 2 + 3 * (i - 4)
  local job, run, record = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  redis.call('SADD', KEYS[2], job)
  redis.call('HSETNX', KEYS[3], job, record)
  local standing = redis.pcall('GET', KEYS[i]) -- what is of another type is no record of ours
  if type(standing) ~= 'string' or not string.find(standing, '"run":"' .. run .. '"', 1, true) then
    redis.call('SET', KEYS[i], record)
  end
end
return 1
