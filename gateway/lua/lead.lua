-- Take or renew the lease of the group's leader.   KEYS: leader   ARGV: owner, lease ms
-- Returns 1 if the owner is the leader, else 0.
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
