-- Put a quarantined job back into its queue with all its tries, unless its id was enqueued anew meanwhile. Once per receipt.
-- KEYS: the queue, arq:job:{job}, arq:retry:{job}, arq:result:{job}, arq:in-progress:{job}, receipt of its quarantine
-- ARGV: job id, payload, the result that was left when it was quarantined, lifetime of the job in ms, of the receipt in ms
-- Returns: 1 when it is queued, or was by an earlier call; 0 when the id is in use again
local queue, job, tries, job_result, in_progress, receipt = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, payload, left_result, job_ms, receipt_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if redis.call('HGET', receipt, 'retried') then
  return 1
end
if redis.call('EXISTS', job, in_progress) > 0 or redis.call('ZSCORE', queue, id) then
  return 0
end
local result = redis.call('GET', job_result)
if result and result ~= left_result then
  return 0
end
local time = redis.call('TIME')
redis.call('DEL', tries, job_result)
redis.call('SET', job, payload, 'PX', job_ms)
redis.call('ZADD', queue, time[1] * 1000 + math.floor(time[2] / 1000), id)
redis.call('HSET', receipt, 'retried', 1)
redis.call('PEXPIRE', receipt, receipt_ms)
return 1
