-- After data loss, set `spent` to what the ledger booked, what it set aside and what is on its way.
-- Only the process that delivers events may run this, and only between two deliveries.
-- KEYS: account   ARGV: ledger epoch, booked
local a = redis.call('HMGET', KEYS[1], 'epoch', 'pending', 'parked', 'resync')
if a[4] ~= '1' or a[1] ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'spent',
  int(tonumber(ARGV[2]) + tonumber(a[2] or '0') + tonumber(a[3] or '0')))
redis.call('HDEL', KEYS[1], 'resync')
return 1
