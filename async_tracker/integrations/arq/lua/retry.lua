-- Put a quarantined job back into its queue with all its tries, unless its id was enqueued anew meanwhile. Once, however often.
-- KEYS: the queue, arq:job:{job}, arq:retry:{job}, arq:result:{job}, arq:in-progress:{job}, receipt of its quarantine
-- ARGV: job id, payload, the result that was left when it was quarantined, lifetime of the job in ms, of the receipt in ms
-- Returns: 1 when it is queued, or was by an earlier call; 0 when the id is in use again
if redis.call('HGET', KEYS[6], 'retried') then
  return 1
end
if redis.call('EXISTS', KEYS[2], KEYS[5]) > 0 or redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local result = redis.call('GET', KEYS[4])
if result and result ~= ARGV[3] then
  return 0
end
local time = redis.call('TIME')
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
redis.call('HSET', KEYS[6], 'retried', 1)
redis.call('PEXPIRE', KEYS[6], ARGV[5])
return 1
