-- Read the jobs in flight on instances, and the records of these: a few long replies cost a client far less than many short ones.
-- KEYS: `job:`, with which the keys of the records begin, then jobs:{id} of each instance
-- ARGV: separator, what stands for a record that is not there, how many records at most
-- Returns: for each instance the members of its set, and their records or nil where these are too many for one script; both as parts
--          that end with the separator; a number in place of what is of another type
local separator, missing, left = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function joined(parts)
  parts[#parts + 1] = ''
  return table.concat(parts, separator)
end

local function records(refs)
  if #refs > left then
    return false
  elseif #refs == 0 then
    return ''
  end
  left = left - #refs
  local names = {}
  for i, ref in ipairs(refs) do
    names[i] = KEYS[1] .. ref
  end
  local found = redis.call('MGET', unpack(names))
  for i = 1, #names do
    found[i] = found[i] or missing
  end
  return joined(found)
end

local replies = {}
for i = 2, #KEYS do
  local refs = redis.pcall('SMEMBERS', KEYS[i])
  replies[2 * i - 2] = refs.err and '' or records(refs)
  replies[2 * i - 3] = refs.err and 0 or joined(refs)
end
return replies
