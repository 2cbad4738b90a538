-- Take a poison pill out of arq: payload copied, job, claim, tries and queue entry deleted, a failed result for the caller who awaits it.
-- KEYS: arq:in-progress:{job}, the queue, arq:job:{job}, arq:retry:{job}, arq:result:{job}, arq:abort, receipt, receipt:abort:{claim}
-- ARGV: job id, claim of that run, result (opaque), lifetime of the result in ms, lifetime of the receipt in ms
-- Returns: {payload, result}, now or from the receipt; nil when the claim is not that run's, or the job not queued,
--          or when it was released before, or was being aborted
local in_progress, queue, job, tries, job_result, aborted = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local receipt, abort = KEYS[7], KEYS[8]
local id, claim, result, result_ms, receipt_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if redis.call('TYPE', receipt)['ok'] == 'string' or redis.call('EXISTS', abort) == 1 then
  return nil
end
local kept = redis.call('HMGET', receipt, 'payload', 'result')
if kept[1] then
  return kept
end
if redis.call('GET', in_progress) ~= claim or not redis.call('ZSCORE', queue, id) then
  return nil
end
local payload = redis.call('GET', job)
if not payload then
  return nil
end
redis.call('DEL', in_progress, job, tries)
redis.call('ZREM', queue, id)
redis.call('ZREM', aborted, id)
redis.call('SET', job_result, result, 'PX', result_ms)
redis.call('HSET', receipt, 'payload', payload, 'result', result)
redis.call('PEXPIRE', receipt, receipt_ms)
return {payload, result}
