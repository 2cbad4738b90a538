-- Have an order stand: who registers meanwhile, in its scope, begins with it. It takes the place of one with the same scope.
-- KEYS: standing
-- ARGV: scope, id of the order, order as JSON, for how many ms it stands
-- Returns: until when it stands, in ms
local standing = KEYS[1]
local scope, order, text, for_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = now + for_ms
redis.call('HSET', standing, scope, order .. ' ' .. string.format('%.0f', until_ms) .. ' ' .. text)
local longest_ms = for_ms -- the key lives as long as the longest order in it
local lines = redis.call('HGETALL', standing)
for i = 2, #lines, 2 do
  longest_ms = math.max(longest_ms, (tonumber(string.match(lines[i], '^%S+ (%d+) ')) or 0) - now)
end
redis.call('PEXPIRE', standing, string.format('%.0f', longest_ms))
return until_ms
