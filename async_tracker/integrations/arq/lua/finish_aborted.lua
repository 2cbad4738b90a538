-- Finish a job whose worker died while it aborted it, as arq's own abort does: the job is over, and the caller who awaits it is told.
-- KEYS: arq:in-progress:{job}, the queue, arq:job:{job}, arq:retry:{job}, arq:result:{job}, arq:abort, receipt, receipt:abort:{claim}
-- ARGV: job id, claim of that run, result (opaque), lifetime of the result in ms, lifetime of the receipt in ms
-- Returns: 'aborted', now or before; 'taken' when the claim is not that run's any more
local in_progress, queue, job, tries, job_result, aborted = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local receipt, abort = KEYS[7], KEYS[8]
local id, claim, result, result_ms, receipt_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if redis.call('TYPE', receipt)['ok'] == 'string' then
  return redis.call('GET', receipt)
end
if redis.call('GET', in_progress) ~= claim then
  return 'taken'
end
redis.call('DEL', in_progress, job, tries)
redis.call('ZREM', queue, id)
redis.call('ZREM', aborted, id)
redis.call('SET', job_result, result, 'PX', result_ms)
redis.call('SET', receipt, 'aborted', 'PX', receipt_ms)
redis.call('DEL', abort)
return 'aborted'
