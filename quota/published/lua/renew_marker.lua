-- Renews the marker if it is still the one that was there before the comparison.
-- KEYS: marker. ARGV: nonce, milliseconds. Returns 1 or 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
