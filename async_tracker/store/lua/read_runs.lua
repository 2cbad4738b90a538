-- Read the records of jobs: one long reply costs a client far less than many short ones.
-- KEYS: job:{job} of each, at most some thousands
-- ARGV: separator, what stands for a record that is not there
-- Returns: the records in one text, as parts that end with the separator
local separator, missing = ARGV[1], ARGV[2]

local found = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do
  found[i] = found[i] or missing
end
found[#KEYS + 1] = ''
return table.concat(found, separator)
