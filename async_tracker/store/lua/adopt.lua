-- Keep the orphans of a dead instance as they were found, those that it did not live to record included.
-- What is released runs again at once, and its new run takes the record's place: whoever carries on after a sweeper that died
-- in between finds here what that one was about. A sweeper that comes late, when another has been here, changes nothing: what
-- was settled stays settled, and a record of another instance is that of a newer run.
-- KEYS: dead, jobs:{id}, orphans:{id}, settled:{id}, then job:{job} of each orphan
-- ARGV: id, mark that the record carries when it is that instance's, then job id, run and record of each orphan
-- Returns: 1 when they are orphans now, 0 when the instance is not dead
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local function is_of_another_instance(standing) -- what is of another type, or names nobody, is no record of ours
  return type(standing) == 'string' and string.find(standing, '"instance":"', 1, true)
    and not string.find(standing, ARGV[2], 1, true)
end
for i = 5, #KEYS do
  local at = 3 + 3 * (i - 5)
  local job, run, record = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if not redis.call('HGET', KEYS[4], run) then
    redis.call('SADD', KEYS[2], job)
    redis.call('HSETNX', KEYS[3], job, record)
    local standing = redis.pcall('GET', KEYS[i])
    local is_kept = type(standing) == 'string' and string.find(standing, '"run":"' .. run .. '"', 1, true)
    if not is_kept and not is_of_another_instance(standing) then
      redis.call('SET', KEYS[i], record)
    end
  end
end
return 1
