-- The keys that are kept. Changes nothing. KEYS values ages
-- → {key, value, key, value…}, {key, since, key, since…}
return {redis.call('HGETALL', KEYS[1]), redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')}
