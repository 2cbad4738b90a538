-- Read instances and the jobs in flight on each: a hundred in one call cost a client less than two hundred replies.
-- KEYS: n * instance:{id}, then n * jobs:{id}, or none of these when the jobs are not asked for
-- ARGV: n
-- Returns: n * its hash as a flat list, then the members of each set; a number in place of what is of another type
local replies = {}
local count = tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
  local reply = redis.pcall(i <= count and 'HGETALL' or 'SMEMBERS', key)
  replies[i] = reply.err and 0 or reply
end
return replies
