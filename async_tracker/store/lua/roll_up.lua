-- Put the records of one span, packed, into the strings in which they are kept; what stands there already is left alone.
-- KEYS: packed:{span} of each record
-- ARGV: place of the span in these strings, lifetime in s, then each record with its place and length before it
-- Returns: how many records were put in
local place, lifetime = tonumber(ARGV[1]), ARGV[2]
local first_record = 3

local function holds(packed)
  local at = 1
  while at + 2 <= #packed do
    local standing, high, low = string.byte(packed, at, at + 2)
    if standing == place then
      return true
    end
    at = at + 3 + high * 256 + low
  end
  return false
end

local put_in = 0
for i = 1, #KEYS do
  local key = KEYS[i]
  local packed = redis.pcall('GET', key)
  if packed == false or (type(packed) == 'string' and not holds(packed)) then
    -- Not APPEND, which keeps as much memory again for what may follow.
    redis.call('SET', key, (packed or '') .. ARGV[first_record + i - 1], 'EX', lifetime)
    put_in = put_in + 1
  end
end
return put_in
