-- Prepended to every script: Redis' clock, number formatting, token buckets and scope counters.
-- Amounts are integers of micro-credits; a double holds them exactly up to 2^53.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function int(number)
  return string.format('%.0f', number)
end
-- Return how many requests a token bucket has left. It holds one minute's and refills evenly.
local function tokens_in(bucket, per_minute, now)
  local left, at = string.match(redis.call('GET', bucket) or '', '^(%S+) (%S+)$')
  if not left then
    return per_minute
  end
  return math.min(per_minute, tonumber(left) + (now - tonumber(at)) * per_minute / 60000)
end
local function take_token(bucket, tokens, now)
  redis.call('SET', bucket, (tokens - 1) .. ' ' .. int(now), 'PX', 60000)
end
local function ms_until_a_token(tokens, per_minute)
  return math.ceil((1 - tokens) * 60000 / per_minute)
end
-- Add the amount to a counter of every hash in a list like 'tollgate:account:… tollgate:run:…'.
local function each_scope(scopes, counter, amount)
  for scope in string.gmatch(scopes, '%S+') do
    -- A negative `held` would raise the limit or cap, so it is reset to zero.
    if redis.call('HINCRBY', scope, counter, amount) < 0 and counter == 'held' then
      redis.call('HSET', scope, counter, '0')
    end
  end
end
