-- Returns everything a gate needs to know about one project, at one instant.
-- KEYS: marker, credential generation, states, then per resource: limits, suspended, published.
-- ARGV: the project's API token, then per resource: its account.
-- Reply: TIME, marker, generation, then per resource: score, suspended, entry, state.
local reply = {redis.call('TIME'), redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}
for i = 4, #KEYS, 3 do
  reply[#reply + 1] = redis.call('ZSCORE', KEYS[i], ARGV[1])
  reply[#reply + 1] = redis.call('ZSCORE', KEYS[i + 1], ARGV[1])
  reply[#reply + 1] = redis.call('HGET', KEYS[i + 2], ARGV[1])
  reply[#reply + 1] = redis.call('HGET', KEYS[3], ARGV[(i - 4) / 3 + 2])
end
return reply
