-- Put the records of one span, packed, into the strings in which they are kept; what stands there already is left alone.
-- KEYS: packed:{span} of each record, packed:{span} of each that these are made of
-- ARGV: place of the span in these strings, their lifetime in s, number of records n, lifetime of what they are made of in s,
--       then each record with its place and length before it
-- Returns: how many records were put in
local place, lifetime, count, rest = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local before_records = 4

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
for i = 1, count do
  local key = KEYS[i]
  local packed = redis.pcall('GET', key)
  if packed == false or (type(packed) == 'string' and not holds(packed)) then
    -- Not APPEND, which keeps as much memory again for what may follow.
    redis.call('SET', key, (packed or '') .. ARGV[before_records + i], 'EX', lifetime)
    put_in = put_in + 1
  end
end
for i = count + 1, #KEYS do
  local key = KEYS[i]
  redis.call('EXPIRE', key, rest)
end
return put_in
