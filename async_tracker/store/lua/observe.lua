-- Read all the evidence that the namespace holds, at one moment.
-- KEYS: instances, connections, gone, watchdogs, dead, server
-- ARGV: run id of the server, '' to change nothing; lifetime of the note of the server in s; after how many ms it is renewed
-- Returns: {now in ms, noted run id of the server, since when in ms it is this one or -1, instances with scores, connections, gone,
--           watchdogs with scores, dead with scores}
local instances, connections, gone, watchdogs, dead, server = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local run_id, server_seconds, renewed_after_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if run_id ~= '' then
  local known = redis.call('HMGET', server, 'run_id', 'renewed_ms')
  if known[1] ~= run_id then
    -- The first server is compared with no other one, so no instance is given time to return.
    redis.call('HSET', server, 'run_id', run_id, 'since_ms', known[1] and now or -1)
  end
  -- If the note expired while instances live, the next server would pass for the first one. It is renewed seldom, so that most
  -- observations write nothing.
  if known[1] ~= run_id or now - (tonumber(known[2]) or 0) > renewed_after_ms then
    redis.call('HSET', server, 'renewed_ms', now)
    redis.call('EXPIRE', server, server_seconds)
  end
end
if run_id ~= '' then
  -- When the server's clock is set back, stamps of the future are left. They are set to now: with them no instance would be found
  -- missing until the clock has caught up.
  local future = '(' .. string.format('%.0f', now)
  for _, name in ipairs(redis.call('ZRANGE', instances, future, '+inf', 'BYSCORE')) do
    redis.call('ZADD', instances, now, name)
  end
  for _, name in ipairs(redis.call('ZRANGE', watchdogs, future, '+inf', 'BYSCORE')) do
    redis.call('ZADD', watchdogs, now, name)
  end
  local stamps = redis.call('HGETALL', gone)
  for i = 1, #stamps, 2 do
    if (tonumber(stamps[i + 1]) or 0) > now then
      redis.call('HSET', gone, stamps[i], now)
    end
  end
  if (tonumber(redis.call('HGET', server, 'since_ms')) or 0) > now then
    redis.call('HSET', server, 'since_ms', now)
  end
end
local noted = redis.call('HMGET', server, 'run_id', 'since_ms')
return {
  now, noted[1] or '', noted[2] or '-1',
  redis.call('ZRANGE', instances, 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', connections),
  redis.call('HGETALL', gone),
  redis.call('ZRANGE', watchdogs, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', dead, 0, -1, 'WITHSCORES'),
}
