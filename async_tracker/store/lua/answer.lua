-- Answer an order: by the instance, or by the caller, who waits no longer and takes it back. The first answer stands.
-- KEYS: instance:{id}, answer:{order}, events
-- ARGV: id of the order, answer as JSON, lifetime of the answer in ms, length of the stream, lifetime of the stream in s, event as JSON
-- Returns: '' when this answer stands; else the one that stood before
local instance, answer, events = KEYS[1], KEYS[2], KEYS[3]
local order, text, answer_ms, events_kept, events_seconds, event = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local orders = redis.pcall('HGET', instance, 'orders')
if type(orders) == 'string' then
  local open = {}
  for line in string.gmatch(orders, '[^\n]+') do
    if string.match(line, '^%S+') ~= order then
      open[#open + 1] = line
    end
  end
  if #open > 0 then
    redis.call('HSET', instance, 'orders', table.concat(open, '\n'))
  else
    redis.call('HDEL', instance, 'orders')
  end
end
if not redis.call('SET', answer, text, 'NX', 'PX', answer_ms) then
  return redis.call('GET', answer)
end
redis.pcall('XADD', events, 'MAXLEN', '~', events_kept, '*', 'event', event)
redis.call('EXPIRE', events, events_seconds)
return ''
