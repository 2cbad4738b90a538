-- Read what has changed since a sweeper last looked, and which instances need a closer look: the cost grows with these, not with
-- the fleet.
-- KEYS: instances, changed, gone, watchdogs, dead, server
-- ARGV: run id of the server, '' when it cannot be known; lifetime of the note of the server in s; after how many ms it is renewed;
--       when the sweeper last looked in ms; after how many ms without a heartbeat an instance is late; for how many ms changes are kept
-- Returns: {now in ms, noted run id of the server, since when in ms it is this one or -1, number of instances, 1 when all changes since
--           then are known, else 0, ids that changed, ids that are late, ids that are marked gone, ids whose watchdog spoke,
--           dead with scores}
local instances, changed, gone, watchdogs, dead, server = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local run_id, server_seconds, renewed_after_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local since, late_ms, kept_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number)
  return string.format('%.0f', number)
end

local known = redis.call('HMGET', server, 'run_id', 'renewed_ms')
if run_id ~= '' and known[1] ~= run_id then
  -- The first server is compared with no other one, so no instance is given time to return.
  redis.call('HSET', server, 'run_id', run_id, 'since_ms', known[1] and now or -1)
end
if run_id ~= '' and (known[1] ~= run_id or now - (tonumber(known[2]) or 0) > renewed_after_ms) then
  redis.call('HSET', server, 'renewed_ms', now)
  redis.call('EXPIRE', server, server_seconds)
end

-- When the server's clock is set back, stamps of the future are left. They are set to now: with them no instance would be found
-- missing until the clock has caught up.
local future = '(' .. whole(now)
for _, id in ipairs(redis.call('ZRANGE', instances, future, '+inf', 'BYSCORE')) do
  redis.call('ZADD', instances, now, id)
end
for _, id in ipairs(redis.call('ZRANGE', watchdogs, future, '+inf', 'BYSCORE')) do
  redis.call('ZADD', watchdogs, now, id)
end
local marked = {}
local stamps = redis.call('HGETALL', gone)
for i = 1, #stamps, 2 do
  if (tonumber(stamps[i + 1]) or 0) > now then
    redis.call('HSET', gone, stamps[i], now)
  end
  marked[#marked + 1] = stamps[i]
end
if (tonumber(redis.call('HGET', server, 'since_ms')) or 0) > now then
  redis.call('HSET', server, 'since_ms', now)
end

-- Another program's key of that name costs what it saves, and nothing else: hence pcall.
local new = redis.pcall('ZRANGE', changed, whole(since), '+inf', 'BYSCORE')
local are_known = 1
if new.err or since > now or now - since > kept_ms then
  new, are_known = {}, 0
else
  local old = redis.call('ZRANGE', changed, '-inf', '(' .. whole(now - kept_ms), 'BYSCORE', 'LIMIT', 0, 1000)
  if #old > 0 then
    redis.call('ZREM', changed, unpack(old))
  end
end
local noted = redis.call('HMGET', server, 'run_id', 'since_ms')
return {
  now, noted[1] or '', noted[2] or '-1', redis.call('ZCARD', instances), are_known, new,
  redis.call('ZRANGE', instances, '-inf', whole(now - late_ms), 'BYSCORE'), marked,
  redis.call('ZRANGE', watchdogs, 0, -1), redis.call('ZRANGE', dead, 0, -1, 'WITHSCORES'),
}
