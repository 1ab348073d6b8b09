-- Writes what one owner has to say, all of it or nothing; the owner's lease is renewed by it.
-- KEYS meta log snap record turns mail
-- ARGV process fence epoch ttl_ms keep_seconds prev_seq prev_id active queued
--      window_frames window_bytes oldest_ms record turns snap_seq snap mail_done n
--      then n times: id at_ms size event text
-- An empty record, turns or snap leaves the one that is there.
-- → {"OK"|"FENCED"|"LOST"|"DIVERGED", last mail id}
local process, fence, epoch = ARGV[1], ARGV[2], ARGV[3]
local m = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'epoch', 'head', 'head_id', 'snap', 'bytes')
if m[3] ~= epoch then return {'LOST', ''} end
if m[1] ~= process or m[2] ~= fence then return {'FENCED', ''} end

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local head, head_id, bytes = tonumber(m[4]), m[5], tonumber(m[7])
local n, first = tonumber(ARGV[18]), 19
local last_id = n > 0 and ARGV[first + (n - 1) * 5] or ''

if n > 0 and head_id == last_id then
  -- The answer to this very call was lost on its way; it is said again.
  n = 0
elseif head ~= tonumber(ARGV[6]) or head_id ~= ARGV[7] then
  return {'DIVERGED', ''}
elseif head > 0 and redis.call('EXISTS', KEYS[2]) == 0 then
  return {'DIVERGED', ''}
end

for i = 0, n - 1 do
  local at = first + i * 5
  bytes = bytes + tonumber(ARGV[at + 2])
  head, head_id = head + 1, ARGV[at]
  redis.call('XADD', KEYS[2], head_id, 't', ARGV[at + 1], 'n', ARGV[at + 2], 'c', bytes,
    'e', ARGV[at + 3], 'x', ARGV[at + 4])
end

local snap = tonumber(m[6])
if ARGV[16] ~= '' then
  snap = tonumber(ARGV[15])
  redis.call('SET', KEYS[3], ARGV[16])
end
redis.call('HSET', KEYS[1], 'head', head, 'head_id', head_id, 'bytes', bytes, 'snap', snap,
  'active', ARGV[8], 'queued', ARGV[9], 'until', now + tonumber(ARGV[4]))

-- The oldest frames go, but none that the snapshot does not cover.
if n > 0 then
  local most, weight, oldest = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
  while true do
    local page = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 2)
    if #page < 2 then break end
    local seq, f = tonumber(string.match(page[1][1], '^(%d+)-')), page[1][2]
    local kept = bytes - tonumber(f[6]) + tonumber(f[4])
    if seq > snap or (seq > head - most and kept <= weight and tonumber(f[2]) >= oldest) then
      break
    end
    redis.call('XTRIM', KEYS[2], 'MINID', page[2][1])
  end
end

if ARGV[13] ~= '' then redis.call('SET', KEYS[4], ARGV[13]) end
if ARGV[14] ~= '' then redis.call('SET', KEYS[5], ARGV[14]) end
if ARGV[17] ~= '' then
  redis.call('HSET', KEYS[1], 'mail_done', ARGV[17])
  redis.call('XTRIM', KEYS[6], 'MINID', ARGV[17])
end
if ARGV[13] ~= '' or ARGV[14] ~= '' or ARGV[16] ~= '' then
  for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
local mail = redis.call('XREVRANGE', KEYS[6], '+', '-', 'COUNT', 1)
return {'OK', mail[1] and mail[1][1] or ''}
