-- Adds to a stream that keeps few and lives as long as something is added.
-- KEYS stream   ARGV most keep_seconds field value…
-- → the entry's id
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return id
