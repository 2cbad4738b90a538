-- Count the runs of jobs by function and queue: ten thousand records take a client far longer to read than the server to look at.
-- KEYS: job:{job} of each, at most some thousands
-- ARGV: separator, how a record begins, then for each instance in the order of its keys: how many they are, its mark in a record
-- Returns: for each instance, as parts that end with the separator: what records say from their try to their library, how many say so;
-- of what was written by another version or program: the whole of it, 0
local separator, beginning = ARGV[1], ARGV[2]

local records = redis.call('MGET', unpack(KEYS))
local replies, at = {}, 0
for i = 3, #ARGV, 2 do
  local count, mark = tonumber(ARGV[i]), ARGV[i + 1]
  local ours, any = beginning .. mark, beginning .. '"instance":"'
  local numbers, parts = {}, {}
  for j = at + 1, math.min(at + count, #KEYS) do
    local record = records[j]
    if record and string.find(record, ours, 1, true) == 1 then
      local from = string.find(record, '"try":', #ours + 1, true)
      local to = from and string.find(record, ',"library":"', from, true)
      if to then
        local said = string.sub(record, from, to - 1)
        numbers[said] = (numbers[said] or 0) + 1
      else
        numbers[record] = 0
      end
    elseif record and string.find(record, any, 1, true) ~= 1 then
      numbers[record] = 0
    end
  end
  at = at + count
  for said, number in pairs(numbers) do
    parts[#parts + 1] = said
    parts[#parts + 1] = number
  end
  parts[#parts + 1] = ''
  replies[#replies + 1] = table.concat(parts, separator)
end
return replies
