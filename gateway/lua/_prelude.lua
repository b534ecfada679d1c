-- Shared by every script: the clock of Redis, and numbers as Redis stores them.
-- Amounts are integers of micro-credits; a double holds them exactly up to 2^53.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function int(number)
  return string.format('%.0f', number)
end
-- How many requests a token bucket has left: it holds one minute's and refills evenly.
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
-- Count in every scope of a list like 'tollgate:scope:… tollgate:run:…'.
local function each_scope(scopes, counter, amount)
  for scope in string.gmatch(scopes, '%S+') do
    -- Less than nothing cannot be held: it would void the cap.
    if redis.call('HINCRBY', scope, counter, amount) < 0 and counter == 'held' then
      redis.call('HSET', scope, counter, '0')
    end
  end
end
