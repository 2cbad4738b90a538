-- Withdraw standing orders: those of a scope, or all.
-- KEYS: standing
-- ARGV: scope, '' for all
-- Returns: how many there were
local standing = KEYS[1]
local scope = ARGV[1]

if scope ~= '' then
  return redis.call('HDEL', standing, scope)
end
local lines = redis.call('HGETALL', standing)
redis.call('DEL', standing)
return #lines / 2
