-- Mark projects whose verdict may have changed ('stale') or could not be fetched ('broken').
-- KEYS: tickets, project…   ARGV: 'stale' or 'broken'
for index = 2, #KEYS do
  if redis.call('EXISTS', KEYS[index]) == 1 then
    if ARGV[1] == 'broken' then
      redis.call('HSET', KEYS[index], 'broken', '1')
    else
      redis.call('HSETNX', KEYS[index], 'stale_since', int(now_ms()))
      redis.call('HSET', KEYS[index], 'stale_ticket', redis.call('INCR', KEYS[1]))
    end
  end
end
return 1
