-- Read what instances say of themselves: a few long replies cost a client far less than many short ones.
-- KEYS: instance:{id} of each
-- ARGV: separator
-- Returns: for each its hash, as parts that end with the separator; a number in place of a value of another type
local separator = ARGV[1]

local replies = {}
for i, key in ipairs(KEYS) do
  local reply = redis.pcall('HGETALL', key)
  if reply.err then
    replies[i] = 0
  else
    reply[#reply + 1] = ''
    replies[i] = table.concat(reply, separator)
  end
end
return replies
