-- Give a dead worker's claim back, so that arq runs the job again: at once, or later by the score of its queue.
-- arq only ever tests whether the in-progress key exists; ours carries the claim of the run that holds it.
-- Where the run's worker keeps tries, the one that died with it is not counted: only if arq's count is still that of this run, and not
-- where too many were kept within the window. What that needs may be refused to this user: then arq's count stands.
-- KEYS: arq:in-progress:{job}, the queue, arq:job:{job}, receipt of this release, arq:retry:{job}, receipt:kept:{job},
--       receipt:abort:{claim}
-- ARGV: job id, claim of that run, delay in ms, lifetime of the receipt in ms, try of that run,
--       how many tries may be kept (0: none is), within how many ms
-- Returns: 'released' (now, or before, which the receipt says), 'counted' when it is and its try counts since too many were kept,
--          'quarantined' when that is what the receipt is of, 'aborted' when it was finished as aborted, 'taken',
--          'ended' when the job is not queued any more, or 'aborting' when it was being aborted: then nothing is done, it is to be finished
local in_progress, queue, job, receipt, tries, kept, abort = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id, claim, delay, receipt_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local try, most, window_ms = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])

local there = redis.call('TYPE', receipt)['ok']
if there ~= 'none' then
  return there == 'string' and redis.call('GET', receipt) or 'quarantined'
end
if redis.call('GET', in_progress) ~= claim then
  return 'taken'
end
if not redis.call('ZSCORE', queue, id) then
  return 'ended'
end
if redis.call('EXISTS', abort) == 1 then
  return 'aborting'
end
redis.call('DEL', in_progress)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if delay > 0 then
  redis.call('ZADD', queue, 'XX', now + delay, id)
  local left = redis.call('PTTL', job)
  if left >= 0 and left < 2 * delay then
    redis.call('PEXPIRE', job, left + delay)
  end
end
local result = 'released'
if most > 0 and redis.pcall('GET', tries) == try then
  local before = redis.pcall('HGETALL', kept)
  local count = 0
  for i = 1, before.err and 0 or #before, 2 do -- a run that died while it was told to leave may be noted already
    if before[i] ~= claim and tonumber(before[i + 1]) > now - window_ms then
      count = count + 1
    end
  end
  if count >= most then
    result = 'counted'
  elseif not before.err and type(redis.pcall('HSET', kept, claim, now)) == 'number' then
    redis.pcall('PEXPIRE', kept, window_ms)
    redis.pcall('INCRBY', tries, -1)
  end
end
redis.call('SET', receipt, result, 'PX', receipt_ms)
return result
