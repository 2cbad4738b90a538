-- Forget a dead instance that has no orphan left; its tombstone stays for its lifetime.
-- KEYS: dead, instance:{id}, jobs:{id}, counters:{id}, orphans:{id}, settled:{id}, told:{id}
-- ARGV: id
-- Returns: 1 when it is gone, 0 when orphans are left
local dead, instance, jobs, counters, orphans, settled, told = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id = ARGV[1]

if redis.call('SCARD', jobs) > 0 then
  return 0
end
redis.call('DEL', instance, jobs, counters, orphans, settled, told)
redis.call('ZREM', dead, id)
return 1
