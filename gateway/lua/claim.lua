-- Claim an idempotency key for a call, or return the state of the earlier call.
-- KEYS: the key's entry, owners, mark of a call that gave its claim back
-- ARGV: call id (also the hold's), owner of the hold, fingerprint of the request, how long a call
--       may take to get its hold if its owner is alive (ms), the same if that is unknown (ms),
--       how long the entry is remembered (ms)
-- Returns {status, answer}: 'first'; 'again' if an earlier call was made and its answer is lost;
-- 'kept' with the answer; 'under_way'; or 'other' if the earlier request was a different one.
if redis.call('EXISTS', KEYS[3]) == 1 then -- this command was delivered late
  return {'under_way', ''}
end
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
  local age = now - tonumber(e[5])
  local lease = redis.call('ZSCORE', KEYS[2], e[3])
  if age < tonumber(ARGV[5]) or (age < tonumber(ARGV[4]) and lease and now < tonumber(lease))
      or redis.call('HEXISTS', 'tollgate:holds:' .. e[3], e[4]) == 1 then
    return {'under_way', ''}
  end
  status = 'again'
end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[3], 'owner', ARGV[2], 'call', ARGV[1],
  'at', int(now))
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return {status, ''}
