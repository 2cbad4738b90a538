-- Keep the orphans of a dead instance as they were found, also those that it died too early to record.
-- A released job runs again at once, and its new run takes the record's place. When a sweeper dies in between, the next one finds
-- here what its work was about. A sweeper that comes late, after another one, changes nothing: what was settled stays settled, and
-- a record of another instance belongs to a newer run.
-- KEYS: dead, jobs:{id}, orphans:{id}, settled:{id}, then job:{job} of each orphan
-- ARGV: id, mark of every record, mark of this instance's records, then job id, token, mark of that run's record and record of each orphan
-- Returns: 1 when they are orphans now, 0 when the instance is not dead; an error that names a key when it is of another type
local dead, jobs, orphans, settled = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, any_mark, own_mark = ARGV[1], ARGV[2], ARGV[3]

if not redis.call('ZSCORE', dead, id) then
  return 0
end

-- Redis undoes nothing of a script that it refuses half-way, so what may be of another type is looked at before anything is changed.
for _, look in ipairs({ {'SCARD', jobs}, {'HGET', orphans, ''}, {'HGET', settled, ''} }) do
  local found = redis.pcall(unpack(look))
  if type(found) == 'table' and found.err then
    return redis.error_reply(found.err .. ' (' .. look[2] .. ')')
  end
end

local function holds(standing, mark) -- a value of another type is no record of ours
  return type(standing) == 'string' and string.find(standing, mark, 1, true)
end

local first_key, first_argument = 5, 4
for i = 0, #KEYS - first_key do
  local key, at = KEYS[first_key + i], first_argument + 4 * i
  local job, token, run_mark, record = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if not redis.call('HGET', settled, token) then
    redis.call('SADD', jobs, job)
    redis.call('HSETNX', orphans, job, record)
    local standing = redis.pcall('GET', key)
    local is_of_another_instance = holds(standing, any_mark) and not holds(standing, own_mark)
    if not holds(standing, run_mark) and not is_of_another_instance then
      redis.call('SET', key, record)
    end
  end
end
return 1
