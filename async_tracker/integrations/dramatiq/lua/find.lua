-- Find a message by its id in a part of a queue: a broker files messages under ids of its own. Changes nothing.
-- KEYS: messages of the queue
-- ARGV: cursor, '0' for the first part; id of the message; about how many messages a part has
-- Returns: {the cursor of the next part, '0' after the last; and under which id, and the message itself, for each of this part that has
--          that id somewhere in its text}
local messages = KEYS[1]
local cursor, id, count = ARGV[1], ARGV[2], ARGV[3]

local part = redis.call('HSCAN', messages, cursor, 'COUNT', count)
local found = { part[1] }
for i = 1, #part[2], 2 do
  if string.find(part[2][i + 1], id, 1, true) then
    found[#found + 1] = part[2][i]
    found[#found + 1] = part[2][i + 1]
  end
end
return found
