-- What a fold begins with: the stored snapshot, and every entry after it, of one moment and of
-- whatever age. Changes nothing.
-- KEYS meta log snap
-- → {"" | "gone" where entries are missing, epoch, head, head_id, active, queued, kept frames,
--   kept bytes, snapshot or "", entries…}. An entry: {id, fields}.
local m = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'head_id', 'active', 'queued', 'bytes',
  'snap')
if not m[1] then return {'', 0, 0, '', '', 0, 0, 0, ''} end
local snapshot = redis.call('GET', KEYS[3])
local seq, head = snapshot and tonumber(m[7]) or 0, tonumber(m[2])
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local kept = first and m[6] - first[2][6] + first[2][4] or 0
local answer = {'', m[1], m[2], m[3], m[4], m[5], redis.call('XLEN', KEYS[2]), kept,
  snapshot or ''}
local tail = redis.call('XRANGE', KEYS[2], seq + 1, '+')
-- Entries are added one by one and go from the front, so their count tells whether all are there.
if #tail ~= head - seq then
  answer[1] = 'gone'
  return answer
end
for i = 1, #tail do
  answer[#answer + 1] = tail[i]
end
return answer
