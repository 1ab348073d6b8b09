-- Gives a conversation up, unless mail waits in it. KEYS meta mail   ARGV process fence epoch mail_done
-- → {"OK"|"MAIL"|"FENCED"|"LOST"}
local m = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'epoch')
if m[3] ~= ARGV[3] then return {'LOST'} end
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] then return {'FENCED'} end
local mail = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if mail[1] and mail[1][1] ~= ARGV[4] then return {'MAIL'} end
redis.call('HSET', KEYS[1], 'owner', '', 'until', 0)
return {'OK'}
