-- Remove delivered events from the stream. Those that billing did not book go to a side stream.
-- KEYS: events, side stream   ARGV: (stream id, account, debited, status)…
-- Returns the number of events removed.
local removed = 0
for index = 1, #ARGV, 4 do
  local id, account, debited, status = ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then
    redis.call('XDEL', KEYS[1], id)
    removed = removed + 1
    if account ~= '' then
      redis.call('HINCRBY', 'tollgate:account:' .. account, 'pending', int(0 - tonumber(debited)))
    end
    if status ~= 'booked' then
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'status', status, unpack(entry[2]))
      if account ~= '' then
        redis.call('HINCRBY', 'tollgate:account:' .. account, 'parked', debited)
      end
    end
  end
end
return removed
