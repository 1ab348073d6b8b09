-- Lengthens a lease. KEYS meta log snap record turns mail   ARGV process fence epoch ttl_ms keep_seconds
-- → {"OK"|"FENCED"|"LOST", last mail id}
local m = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'epoch')
if m[3] ~= ARGV[3] then return {'LOST', ''} end
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] then return {'FENCED', ''} end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'until', t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[4]))
for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
local mail = redis.call('XREVRANGE', KEYS[6], '+', '-', 'COUNT', 1)
return {'OK', mail[1] and mail[1][1] or ''}
