-- Forget a dead instance that has no orphan left; its tombstone stays for its lifetime.
-- KEYS: dead, instance:{id}, jobs:{id}, counters:{id}, orphans:{id}, settled:{id}, told:{id}
-- ARGV: id
-- Returns: 1 when it is gone, 0 when orphans are left; an error that names a key when it is of another type
local dead, instance, jobs, counters, orphans, settled, told = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id = ARGV[1]

-- Redis undoes nothing of a script that it refuses half-way, so what may be of another type is looked at before anything is changed.
for _, look in ipairs({ {'SCARD', jobs} }) do
  local found = redis.pcall(unpack(look))
  if type(found) == 'table' and found.err then
    return redis.error_reply(found.err .. ' (' .. look[2] .. ')')
  end
end
if redis.call('SCARD', jobs) > 0 then
  return 0
end
redis.call('DEL', instance, jobs, counters, orphans, settled, told) -- counters: of an instance of an older version
redis.call('ZREM', dead, id)
return 1
