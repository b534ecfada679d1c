-- Release the claim of an idempotency key whose call ended without a kept answer.
-- KEYS: the key's entry   ARGV: call id, '1' if something may have been generated
if redis.call('HGET', KEYS[1], 'call') == ARGV[1] then
  if ARGV[2] == '1' then
    redis.call('HSET', KEYS[1], 'at', '0')
  else
    redis.call('DEL', KEYS[1])
  end
end
return 0
