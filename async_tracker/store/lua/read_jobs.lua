-- Read which jobs are in flight on instances: a few long replies cost a client far less than many short ones.
-- KEYS: jobs:{id} of each
-- ARGV: separator
-- Returns: for each the members of its set, as parts that end with the separator; a number in place of a value of another type
local separator = ARGV[1]

local replies = {}
for i, key in ipairs(KEYS) do
  local refs = redis.pcall('SMEMBERS', key)
  if refs.err then
    replies[i] = 0
  else
    refs[#refs + 1] = ''
    replies[i] = table.concat(refs, separator)
  end
end
return replies
