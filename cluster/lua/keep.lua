-- Keeps keys with their ages, but for those that are there. KEYS values ages
-- ARGV ttl_ms, the count of values, key, value, key, value…, key, since, key, since…
local ttl, last = ARGV[1], 2 + 2 * tonumber(ARGV[2])
for i = 3, last, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = last + 1, #ARGV, 2 do redis.call('ZADD', KEYS[2], 'NX', ARGV[i + 1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
return 1
