-- Removes the expired scores of one sorted set and returns the others, each with its entry.
-- KEYS: the sorted set, published. Returns token, score, entry, token, score, entry, …
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1])
local members = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local reply = {}
for i = 1, #members, 2 do
  reply[#reply + 1] = members[i]
  reply[#reply + 1] = members[i + 1]
  reply[#reply + 1] = redis.call('HGET', KEYS[2], members[i])
end
return reply
