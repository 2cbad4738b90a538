-- Keep a long list of functions, of which instances name the digest, for another while.
-- KEYS: functions:{digest}
-- ARGV: lifetime of the list in s, the list as JSON, or '' while it is not known whether it must be written
-- Returns: 1 when the list is kept, 0 when it is not there and must be written
local list, seconds, names = KEYS[1], ARGV[1], ARGV[2]

if names == '' then
  return redis.call('EXPIRE', list, seconds)
end
redis.call('SET', list, names, 'EX', seconds)
return 1
