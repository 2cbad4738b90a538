-- Give a dead worker's claim back, so that arq runs the job again: at once, or later by the score of its queue.
-- arq only ever tests whether the in-progress key exists; ours carries the claim of the run that holds it.
-- KEYS: arq:in-progress:{job}, the queue, arq:job:{job}, receipt of this release
-- ARGV: job id, claim of that run, delay in ms, lifetime of the receipt in ms
-- Returns: 'released' (now, or before, which the receipt says), 'quarantined' when that is what the receipt is of, 'taken',
--          or 'ended' when the job is not queued any more
local in_progress, queue, job, receipt = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, claim, delay, receipt_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local kept = redis.call('TYPE', receipt)['ok']
if kept ~= 'none' then
  return kept == 'string' and 'released' or 'quarantined'
end
if redis.call('GET', in_progress) ~= claim then
  return 'taken'
end
if not redis.call('ZSCORE', queue, id) then
  return 'ended'
end
redis.call('DEL', in_progress)
if delay > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', queue, 'XX', now + delay, id)
  local left = redis.call('PTTL', job)
  if left >= 0 and left < 2 * delay then
    redis.call('PEXPIRE', job, left + delay)
  end
end
redis.call('SET', receipt, 'released', 'PX', receipt_ms)
return 'released'
