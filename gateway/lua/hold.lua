-- Admit one billable call and reserve the upper bound of its cost, or say why not.
-- KEYS: project, feed, holds of the owner, owners, rate bucket, sequence, run ('' for none),
--       generation
-- ARGV: hold id, bound, owner, lease ms, open window ms, sequence known to the caller, record,
--       run cap ('' for none), requests per minute (0 for any), generation known to the caller
-- Answers {status, remaining, held, age of the last known answer in ms, the project's answer,
--          age of that answer in ms, sequence}. Every change counts the sequence up, so that one
-- that went down tells that Redis lost changes; whoever notices writes a new generation.
local project, feed, holds, owners, bucket = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local hold_id, bound, owner = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now = now_ms()

if tonumber(redis.call('GET', KEYS[6]) or '0') < tonumber(ARGV[6])
    or (redis.call('GET', KEYS[8]) or '') ~= ARGV[10] then
  return {'rewound', 0, 0, 0, '', 0, 0}
end
local p = redis.call('HMGET', project, 'account', 'limited', 'limited_until', 'asked_at',
  'stale_since', 'broken', 'answer', 'soft')
local answer = p[7] or ''
if not p[1] then
  return {'unknown', 0, 0, 0, '', 0, 0}
end
local asked_at = tonumber(p[4])
local age_of_answer = now - asked_at
local confirmed = tonumber(redis.call('HGET', feed, 'confirmed_at') or '0')
if p[5] then
  confirmed = math.min(confirmed, tonumber(p[5]))
end
local age = now - math.max(asked_at, confirmed)

if p[2] == '1' then
  if p[3] == '' or now < tonumber(p[3]) then
    return {'limited', 0, 0, age, answer, age_of_answer, 0}
  end
  return {'unknown', 0, 0, age, answer, age_of_answer, 0}
end
if p[6] or age > tonumber(ARGV[5]) then
  return {'closed', 0, 0, age, answer, age_of_answer, 0}
end
local account = 'tollgate:account:' .. p[1]
local a = redis.call('HMGET', account, 'allotment', 'valid_until', 'spent', 'held')
if not a[1] or (a[2] ~= '' and now >= tonumber(a[2])) then
  return {'unknown', 0, 0, age, answer, age_of_answer, 0}
end
local spent, held = tonumber(a[3] or '0'), tonumber(a[4] or '0')
local remaining = -1
if a[1] ~= '' and p[8] ~= '1' then
  remaining = tonumber(a[1]) - spent - held
end
if redis.call('HEXISTS', holds, hold_id) == 1 then
  return {'held', remaining, held, age, answer, age_of_answer, 0}
end
if a[1] ~= '' and p[8] ~= '1' and remaining < bound then
  return {'short', remaining, held, age, answer, age_of_answer, 0}
end
if KEYS[7] ~= '' and ARGV[8] ~= '' then
  local r = redis.call('HMGET', KEYS[7], 'spent', 'held')
  local left = tonumber(ARGV[8]) - tonumber(r[1] or '0') - tonumber(r[2] or '0')
  if left < bound then
    return {'run_cap', left, tonumber(r[2] or '0'), age, answer, age_of_answer, 0}
  end
end
local per_minute = tonumber(ARGV[9])
if per_minute > 0 then
  -- A token bucket: it holds one minute's requests and refills evenly.
  local b = redis.call('HMGET', bucket, 'tokens', 'at')
  local tokens = per_minute
  if b[1] then
    tokens = math.min(per_minute, tonumber(b[1]) + (now - tonumber(b[2])) * per_minute / 60000)
  end
  if tokens < 1 then
    return {'rate', math.ceil((1 - tokens) * 60000 / per_minute), 0, age, answer, age_of_answer, 0}
  end
  redis.call('HSET', bucket, 'tokens', tostring(tokens - 1), 'at', int(now))
  redis.call('PEXPIRE', bucket, 60000)
end
redis.call('ZADD', owners, int(now + tonumber(ARGV[4])), owner)
redis.call('HSET', holds, hold_id, p[1] .. '\n' .. ARGV[2] .. '\n' .. KEYS[7] .. '\n' .. ARGV[7])
redis.call('HINCRBY', account, 'held', ARGV[2])
if KEYS[7] ~= '' then
  redis.call('HINCRBY', KEYS[7], 'held', ARGV[2])
  redis.call('EXPIRE', KEYS[7], 604800)
end
if remaining >= 0 then
  remaining = remaining - bound
end
return {'held', remaining, held + bound, age, answer, age_of_answer, redis.call('INCR', KEYS[6])}
