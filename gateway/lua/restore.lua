-- Restore a hold that Redis lost although its call is still running, without checking any limit.
-- KEYS: holds of the owner, settled, sequence   ARGV: hold id, account, bound, scopes, record
if redis.call('ZSCORE', KEYS[2], ARGV[1]) or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1],
  ARGV[2] .. '\n' .. ARGV[3] .. '\n' .. ARGV[4] .. '\n' .. ARGV[5])
redis.call('HINCRBY', 'tollgate:account:' .. ARGV[2], 'held', ARGV[3])
each_scope(ARGV[4], 'held', ARGV[3])
redis.call('INCR', KEYS[3])
return 1
