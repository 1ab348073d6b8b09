-- Forgets a key. KEYS values ages   ARGV key
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
