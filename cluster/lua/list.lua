-- Lists a member with its score, and forgets the lowest where there are too many.
-- KEYS list   ARGV most keep_seconds score member
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
