-- Note that the try of a run is given back to its job, so that arq does not count it; too many within the window are not.
-- KEYS: receipt:kept:{job}
-- ARGV: token of the run, how many may be kept, within how many ms
-- Returns: 1 when it may be given back, now or by an earlier call for this run; 0 when too many were
local kept = KEYS[1]
local token, most, window_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

if redis.call('HGET', kept, token) then
  return 1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('HGETALL', kept)
local count = 0
for i = 1, #before, 2 do
  if tonumber(before[i + 1]) <= now - window_ms then
    redis.call('HDEL', kept, before[i])
  else
    count = count + 1
  end
end
if count >= most then
  return 0
end
redis.call('HSET', kept, token, now)
redis.call('PEXPIRE', kept, window_ms)
return 1
