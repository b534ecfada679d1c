-- Sets the marker if nothing was lost since the rebuild began.
-- KEYS: marker, the rebuild's key. ARGV: nonce, milliseconds. Returns 1 or 0.
if redis.call('DEL', KEYS[2]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
