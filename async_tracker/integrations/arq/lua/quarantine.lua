-- Take a poison pill out of arq: payload copied, job, claim, tries and queue entry deleted, a failed result for whoever awaits it.
-- KEYS: arq:in-progress:{job}, the queue, arq:job:{job}, arq:retry:{job}, arq:result:{job}, arq:abort, receipt
-- ARGV: job id, token, result (opaque), lifetime of the result in ms, lifetime of the receipt in ms
-- Returns: {payload, result}, now or from the receipt; nil when the claim is not that run's, or the job not queued,
--          or when it was released before
if redis.call('TYPE', KEYS[7])['ok'] == 'string' then
  return nil
end
local kept = redis.call('HMGET', KEYS[7], 'payload', 'result')
if kept[1] then
  return kept
end
if redis.call('GET', KEYS[1]) ~= ARGV[2] or not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return nil
end
local payload = redis.call('GET', KEYS[3])
if not payload then
  return nil
end
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
redis.call('SET', KEYS[5], ARGV[3], 'PX', ARGV[4])
redis.call('HSET', KEYS[7], 'payload', payload, 'result', ARGV[3])
redis.call('PEXPIRE', KEYS[7], ARGV[5])
return {payload, ARGV[3]}
