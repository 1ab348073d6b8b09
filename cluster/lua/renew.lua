-- Lengthens a lease. KEYS meta mail   ARGV process fence epoch ttl_ms
-- → {"OK"|"FENCED"|"LOST", last mail id}
local m = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'epoch')
if m[3] ~= ARGV[3] then return {'LOST', ''} end
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] then return {'FENCED', ''} end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'until', t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[4]))
local mail = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {'OK', mail[1] and mail[1][1] or ''}
