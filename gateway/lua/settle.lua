-- End a hold: book the real cost, release the rest, append the event; all or nothing.
-- KEYS: holds of the owner, events, sequence, settled, reaped, PostHog's events, number left out
-- ARGV: mode, hold id, cost, event, account, how long to remember the id (ms),
--       how many events may wait for PostHog ('0' if it gets none),
--       the scopes that count the call if there is no hold to name them
-- Modes: 'hold' needs the hold; 'reap' too, on behalf of a dead owner; 'force' books with or without
-- it (a call without a hold, a correction, what Redis lost); 'release' books and appends nothing.
-- Returns {'settled', sequence}, or why nothing was done: the hold was settled before ('done') or
-- reaped before ('reaped'), or it is 'gone'.
local mode, hold_id, cost = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local function sequence()
  return tonumber(redis.call('GET', KEYS[3]) or '0')
end
local hold = redis.call('HGET', KEYS[1], hold_id)
if not hold then -- removing a hold and remembering its id are one step
  if redis.call('ZSCORE', KEYS[5], hold_id) then
    return {'reaped', sequence()}
  end
  if redis.call('ZSCORE', KEYS[4], hold_id) then
    return {'done', sequence()}
  end
  if mode ~= 'force' then
    return {'gone', sequence()}
  end
end
local account, scopes = ARGV[5], ARGV[8]
if hold then
  local bound
  account, bound, scopes = string.match(hold, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n')
  redis.call('HDEL', KEYS[1], hold_id)
  each_scope('tollgate:account:' .. account .. ' ' .. scopes, 'held', '-' .. bound)
end
if mode == 'release' then
  return {'settled', redis.call('INCR', KEYS[3])}
end
if account ~= '' then
  each_scope(scopes, 'spent', cost)
  redis.call('HINCRBY', 'tollgate:account:' .. account, 'spent', cost)
  redis.call('HINCRBY', 'tollgate:account:' .. account, 'pending', cost)
end
redis.call('XADD', KEYS[2], '*', 'event', ARGV[4], 'account', account, 'debited', cost)
if ARGV[7] ~= '0' then
  if redis.call('XLEN', KEYS[6]) < tonumber(ARGV[7]) then
    redis.call('XADD', KEYS[6], '*', 'event', ARGV[4])
  else
    redis.call('INCR', KEYS[7])
  end
end
redis.call('ZADD', KEYS[4], int(now + tonumber(ARGV[6])), hold_id)
if mode == 'reap' then
  redis.call('ZADD', KEYS[5], int(now + 86400000), hold_id)
end
return {'settled', redis.call('INCR', KEYS[3])}
