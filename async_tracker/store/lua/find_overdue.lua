-- Find the runs that are past their timeout: of ten thousand records a client then reads the few that it shows.
-- KEYS: job:{job} of each, at most some thousands
-- ARGV: how a record begins, how many runs are given of each instance at most, then for each instance in the order of its keys: how many
--       they are, its mark in a record
-- Returns: now in ms, then for each instance: {how many of its runs are past their timeout; the place among its keys and the record of each
--          that is so by most, the worst first; the same of all that another version or program wrote}
local beginning, most = ARGV[1], tonumber(ARGV[2])
local any = beginning .. '"instance":"'

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local records = redis.call('MGET', unpack(KEYS))
local replies, at = {now}, 0
for i = 3, #ARGV, 2 do
  local count, ours = tonumber(ARGV[i]), beginning .. ARGV[i + 1]
  local late, other = {}, {}
  for place = 1, math.min(count, #KEYS - at) do
    local record = records[at + place]
    if record and string.find(record, ours, 1, true) == 1 then
      local started, timeout = string.match(record, ',"started_at_ms":(%d+),"timeout":([%d.eE+-]+)', #ours + 1)
      local over = started and now - tonumber(started) - (tonumber(timeout) or math.huge) * 1000
      if over and over > 0 then
        late[#late + 1] = {over, KEYS[at + place], place}
      end
    elseif record and string.find(record, any, 1, true) ~= 1 then
      other[#other + 1] = place
      other[#other + 1] = record
    end
  end
  table.sort(late, function(one, another)
    return one[1] > another[1] or (one[1] == another[1] and one[2] < another[2])
  end)
  local worst = {}
  for j = 1, math.min(#late, most) do
    local place = late[j][3]
    worst[#worst + 1] = place
    worst[#worst + 1] = records[at + place]
  end
  at = at + count
  replies[#replies + 1] = {#late, worst, other}
end
return replies
