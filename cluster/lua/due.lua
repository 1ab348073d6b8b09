-- The members whose lease has ended, longest ago first. KEYS leases   ARGV most
local t = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1000 + math.floor(t[2] / 1000),
  'LIMIT', 0, ARGV[1])
