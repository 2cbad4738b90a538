-- Count the jobs that are listed as in flight on instances.
-- KEYS: jobs:{id} of each
-- ARGV: how many a key of another type lists
-- Returns: how many there are
local of_another_type = tonumber(ARGV[1])

local listed = 0
for _, key in ipairs(KEYS) do
  local count = redis.pcall('SCARD', key)
  listed = listed + (type(count) == 'number' and count or of_another_type)
end
return listed
