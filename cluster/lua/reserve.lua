-- Keeps a key's first use. KEYS values ages   ARGV key value keys_most ttl_ms
-- → {1 if it is new, the value of its first use}
local key, most, ttl = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function forget(old)
  for i = 1, #old do
    redis.call('HDEL', KEYS[1], old[i])
    redis.call('ZREM', KEYS[2], old[i])
  end
end
forget(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ttl))
local known = redis.call('HGET', KEYS[1], key)
if known then return {0, known} end
forget(redis.call('ZRANGE', KEYS[2], 0, -most))
redis.call('HSET', KEYS[1], key, ARGV[2])
redis.call('ZADD', KEYS[2], now, key)
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
return {1, ARGV[2]}
