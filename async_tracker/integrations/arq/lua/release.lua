-- Give a dead worker's claim back, so that arq runs the job again: at once, or later by the score of its queue.
-- arq only ever tests whether the in-progress key exists; ours carries the token of the run that holds it.
-- KEYS: arq:in-progress:{job}, the queue, arq:job:{job}, receipt of this release
-- ARGV: job id, token, delay in ms, lifetime of the receipt in ms
-- Returns: 'released' (now, or before by whoever left the receipt), 'quarantined' when that is what the receipt is of, 'taken',
--          or 'ended' when the job is not queued any more
local receipt = redis.call('TYPE', KEYS[4])['ok']
if receipt ~= 'none' then
  return receipt == 'string' and 'released' or 'quarantined'
end
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return 'taken'
end
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 'ended'
end
redis.call('DEL', KEYS[1])
local delay = tonumber(ARGV[3])
if delay > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', KEYS[2], 'XX', now + delay, ARGV[1])
  local left = redis.call('PTTL', KEYS[3])
  if left >= 0 and left < 2 * delay then
    redis.call('PEXPIRE', KEYS[3], left + delay)
  end
end
redis.call('SET', KEYS[4], 'released', 'PX', ARGV[4])
return 'released'
