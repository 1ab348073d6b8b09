-- Proves a cursor and gives what came after it. Changes nothing.
-- KEYS meta log   ARGV epoch seq id limit oldest_ms
-- → {reason or "", epoch, head, head_id, active, queued, kept frames, kept bytes, entries…}
-- An entry: {id, fields}.
local m = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'head_id', 'active', 'queued', 'bytes')
local epoch, seq, id, limit = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
if not m[1] then
  -- Nothing was ever written, or all is gone; who has seen nothing has missed nothing.
  return {(epoch == '0' and seq == 0) and '' or 'epoch', 0, 0, '', '', 0, 0, 0}
end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local kept = first and m[6] - first[2][6] + first[2][4] or 0
local answer = {'', m[1], m[2], m[3], m[4], m[5], redis.call('XLEN', KEYS[2]), kept}
local head = tonumber(m[2])
if epoch ~= m[1] then answer[1] = 'epoch' return answer end
if seq > head then answer[1] = 'ahead' return answer end
if seq == head then
  if id ~= m[3] then answer[1] = 'diverged' end
  return answer
end
-- An id begins with its entry's number, so places are found by number.
local page = redis.call('XRANGE', KEYS[2], seq, seq + limit)
local from = 1
if seq > 0 then
  local own = page[1]
  if not own or tonumber(string.match(own[1], '^(%d+)-')) ~= seq then
    answer[1] = 'window'
    return answer
  end
  if own[1] ~= id then answer[1] = 'diverged' return answer end
  from = 2
elseif id ~= '' then
  answer[1] = 'diverged'
  return answer
end
local expected = seq + 1
for i = from, #page do
  local entry = page[i]
  if tonumber(string.match(entry[1], '^(%d+)-')) ~= expected
      or tonumber(entry[2][2]) < tonumber(ARGV[5]) then
    answer[1] = 'window'
    return answer
  end
  answer[#answer + 1] = entry
  expected = expected + 1
end
if #answer == 8 then answer[1] = 'window' end
return answer
