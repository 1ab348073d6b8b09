-- Notes when leases end; members with ttl_ms 0 are due at once. KEYS leases
-- ARGV keep_seconds ttl_ms member…
local t = redis.call('TIME')
local ends = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[2])
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return #ARGV - 2
