-- Forget a dead instance that has no orphan left; its tombstone stays for its lifetime.
-- KEYS: dead, instance:{id}, jobs:{id}, counters:{id}, orphans:{id}, settled:{id}, told:{id}
-- ARGV: id
-- Returns: 1 when it is gone, 0 when orphans are left
if redis.call('SCARD', KEYS[3]) > 0 then
  return 0
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
