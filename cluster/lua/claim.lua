-- Makes `process` the owner of a conversation, unless another's lease still runs.
-- KEYS meta log snap record turns mail   ARGV process ttl_ms diverged_epoch keep_seconds
-- A log that went back behind what was written to it goes on in a new epoch; no old cursor holds.
-- → {"OK"|"HELD", owner, remaining_ms, fence, epoch}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local process, ttl = ARGV[1], tonumber(ARGV[2])

if redis.call('EXISTS', KEYS[1]) == 0 then
  -- A log without its meta is half of a lost life: nothing in it can be proved.
  redis.call('DEL', KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'epoch', now, 'head', 0, 'head_id', '', 'fence', 0, 'owner', '',
    'until', 0, 'snap', 0, 'active', '', 'queued', 0, 'bytes', 0)
end

local m = redis.call('HMGET', KEYS[1], 'owner', 'until', 'fence', 'epoch')
local owner, ends = m[1], tonumber(m[2])
if owner ~= '' and owner ~= process and ends > now then
  return {'HELD', owner, ends - now, m[3], m[4]}
end
local fence = tonumber(m[3])
if owner ~= process or ends <= now then
  fence = fence + 1
end
local epoch = m[4]
if ARGV[3] == epoch then
  epoch = math.max(now, tonumber(epoch) + 1)
  redis.call('HSET', KEYS[1], 'epoch', epoch)
end
redis.call('HSET', KEYS[1], 'owner', process, 'until', now + ttl, 'fence', fence)
for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
return {'OK', process, ttl, fence, epoch}
