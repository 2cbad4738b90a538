-- All the evidence that the namespace holds, at one moment.
-- KEYS: instances, connections, gone, watchdogs, dead, server
-- ARGV: run id of the server; '' to change nothing
-- Returns: {now in ms, noted run id of the server, since when in ms it is this one or -1, instances with scores, connections, gone,
--           watchdogs with scores, dead with scores}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then
  local known = redis.call('HMGET', KEYS[6], 'run_id', 'renewed_ms')
  if known[1] ~= ARGV[1] then
    -- the first time there is nothing to compare with, and nobody to be patient with
    redis.call('HSET', KEYS[6], 'run_id', ARGV[1], 'since_ms', known[1] and now or -1)
  end
  -- Forgotten while instances live, the next server would pass for the first one. Once a day will do: else a look costs no write.
  if known[1] ~= ARGV[1] or now - (tonumber(known[2]) or 0) > 86400000 then
    redis.call('HSET', KEYS[6], 'renewed_ms', now)
    redis.call('EXPIRE', KEYS[6], 2592000)
  end
end
if ARGV[1] ~= '' then
  -- A clock that was put back leaves stamps of the future behind, and nobody would be missed before it has caught up with them.
  local future = '(' .. string.format('%.0f', now)
  for _, name in ipairs(redis.call('ZRANGE', KEYS[1], future, '+inf', 'BYSCORE')) do
    redis.call('ZADD', KEYS[1], now, name)
  end
  for _, name in ipairs(redis.call('ZRANGE', KEYS[4], future, '+inf', 'BYSCORE')) do
    redis.call('ZADD', KEYS[4], now, name)
  end
  local gone = redis.call('HGETALL', KEYS[3])
  for i = 1, #gone, 2 do
    if (tonumber(gone[i + 1]) or 0) > now then
      redis.call('HSET', KEYS[3], gone[i], now)
    end
  end
  if (tonumber(redis.call('HGET', KEYS[6], 'since_ms')) or 0) > now then
    redis.call('HSET', KEYS[6], 'since_ms', now)
  end
end
local server = redis.call('HMGET', KEYS[6], 'run_id', 'since_ms')
return {
  now, server[1] or '', server[2] or '-1',
  redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', KEYS[2]),
  redis.call('HGETALL', KEYS[3]),
  redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES'),
}
