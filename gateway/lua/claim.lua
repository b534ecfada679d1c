-- Let one call of an idempotency key be made, or say what became of the one before.
-- KEYS: the key's entry
-- ARGV: call id (also of its hold), owner of the hold, fingerprint of the request, how long a call
--       may take to get its hold (ms), how long the entry is remembered (ms)
-- Answers {'first'}; {'again'}, where an earlier call was made and its answer is gone; {'kept',
-- answer}; {'under_way'}; or {'other'}, where the earlier request was a different one.
local now = now_ms()
local e = redis.call('HMGET', KEYS[1], 'fingerprint', 'answer', 'owner', 'call', 'at')
local status = 'first'
if e[1] then
  if e[1] ~= ARGV[3] then
    return {'other', ''}
  end
  if e[2] then
    return {'kept', e[2]}
  end
  if now - tonumber(e[5]) < tonumber(ARGV[4])
      or redis.call('HEXISTS', 'tollgate:holds:' .. e[3], e[4]) == 1 then
    return {'under_way', ''}
  end
  status = 'again'
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[3], 'owner', ARGV[2], 'call', ARGV[1],
  'at', int(now))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {status, ''}
