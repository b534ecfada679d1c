-- Release the claim of an idempotency key whose call ended without a kept answer.
-- KEYS: the key's entry, mark of the call
-- ARGV: call id, '1' if something may have been generated, for how long the claim can still reach
--       Redis after this (ms; 0 if Redis has answered it)
if redis.call('HGET', KEYS[1], 'call') == ARGV[1] then
  if ARGV[2] == '1' then
    redis.call('HSET', KEYS[1], 'at', '0')
  else
    redis.call('DEL', KEYS[1])
  end
end
if ARGV[3] ~= '0' then
  redis.call('SET', KEYS[2], '', 'PX', ARGV[3])
end
return 0
