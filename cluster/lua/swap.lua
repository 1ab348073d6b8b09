-- Puts a record in the place of one that nobody owns or has changed. KEYS meta record   ARGV before after
-- → 1 if that was done
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner ~= '' or redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'KEEPTTL')
return 1
