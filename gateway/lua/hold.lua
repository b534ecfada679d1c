-- Admit one billable call and reserve the upper bound of its cost, or return why not.
-- KEYS: project, feed, holds of the owner, owners, rate bucket, sequence, run ('' for none),
--       generation
-- ARGV: hold id, bound, owner, lease ms, open window ms, sequence known to the caller, record,
--       run cap ('' for none), requests per minute (0 for any), generation known to the caller,
--       project id, user, what the run keeps of its cap for its last call, what was accepted for
--       the run ('' for no such cap)
-- Returns {status, remaining, held, ms since Django's answer was last confirmed, that answer (for
--          refusals only), ms since it was given, sequence, the scopes beside the account that
--          count the hold, the percentage of its cap that the run had used or held before (-1
--          for no cap or a hold that was held before; for holds only)}
-- Every change increments the sequence, so a lower sequence shows that Redis lost changes. The
-- process that notices writes a new generation. A command takes about two microseconds, so the
-- script runs only those that it needs.
local project, feed, holds, owners, bucket = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local hold_id, bound, owner = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now = now_ms()

if tonumber(redis.call('GET', KEYS[6]) or '0') < tonumber(ARGV[6])
    or (redis.call('GET', KEYS[8]) or '') ~= ARGV[10] then
  return {'rewound', 0, 0, 0, '', 0, 0, ''}
end
local p = redis.call('HMGET', project, 'account', 'limited', 'limited_until', 'asked_at',
  'stale_since', 'broken', 'soft', 'caps')
if not p[1] then
  return {'unknown', 0, 0, 0, '', 0, 0, ''}
end
local asked_at = tonumber(p[4])
local age_of_answer = now - asked_at
local confirmed = tonumber(redis.call('HGET', feed, 'confirmed_at') or p[4])
if p[5] then
  confirmed = math.min(confirmed, tonumber(p[5]))
end
local age = now - math.max(asked_at, confirmed)
local function refused(status, remaining, held)
  local answer = redis.call('HGET', project, 'answer') or ''
  return {status, remaining, held, age, answer, age_of_answer, 0, ''}
end

if p[2] == '1' then
  if p[3] == '' or now < tonumber(p[3]) then
    return refused('limited', 0, 0)
  end
  return refused('unknown', 0, 0)
end
if p[6] or age > tonumber(ARGV[5]) then
  return refused('closed', 0, 0)
end
local account = 'tollgate:account:' .. p[1]
local a = redis.call('HMGET', account, 'allotment', 'valid_until', 'spent', 'held')
if not a[1] or (a[2] ~= '' and now >= tonumber(a[2])) then
  return refused('unknown', 0, 0)
end
local spent, held = tonumber(a[3] or '0'), tonumber(a[4] or '0')
if held + bound > 4503599627370496 then
  -- 2^52: beyond it, sums of doubles and of 64-bit integers would not stay exact.
  return refused('excessive', 0, held)
end
local remaining = -1
local compared = a[1] ~= '' and p[7] ~= '1'
if compared then
  remaining = tonumber(a[1]) - spent - held
end
local function held_before()
  return {'held', remaining, held, age, '', age_of_answer, 0, '', -1}
end
local function unless_held_before(status, left, under_way)
  if redis.call('HEXISTS', holds, hold_id) == 1 then
    return held_before()
  end
  return refused(status, left, under_way)
end
if compared and remaining < bound then
  return unless_held_before('short', remaining, held)
end
local run_cap, accepted, scopes = tonumber(ARGV[8]), tonumber(ARGV[14] or ''), ''
if accepted then
  run_cap = math.min(accepted, run_cap or accepted)
end
if p[8] then
  -- Django's answer about caps: version, cap of a run, whether this project is capped, whether
  -- users are.
  local version, of_run, of_project, of_users = string.match(p[8], '^(%d+) (%d*) (%d) (%d)$')
  of_run = tonumber(of_run)
  if of_run then
    run_cap = math.min(of_run, run_cap or of_run)
  end
  local capped = {}
  if of_project == '1' then
    capped[1] = {'project_cap', 'tollgate:scope:' .. p[1] .. ':project:' .. ARGV[11]}
  end
  if of_users == '1' then
    local user = 'tollgate:scope:' .. p[1] .. ':user:' .. ARGV[12]
    local known = redis.call('HMGET', user, 'epoch', 'version')
    if known[1] ~= redis.call('HGET', account, 'epoch')
        or tonumber(known[2]) < tonumber(version) then
      return unless_held_before('unknown_user', 0, 0)
    end
    capped[#capped + 1] = {'user_cap', user}
  end
  for _, scope in ipairs(capped) do
    local s = redis.call('HMGET', scope[2], 'allotment', 'spent', 'held')
    if not s[1] then -- its counter was lost, so what is left of the cap is unknown
      return unless_held_before('unknown', 0, 0)
    end
    if s[1] ~= '' then
      local left = tonumber(s[1]) - tonumber(s[2] or '0') - tonumber(s[3] or '0')
      if left < bound then
        return unless_held_before(scope[1], left, tonumber(s[3] or '0'))
      end
      scopes = scopes .. scope[2] .. ' '
    end
  end
end
local run_percent = -1
if KEYS[7] ~= '' and run_cap then
  local r = redis.call('HMGET', KEYS[7], 'spent', 'held')
  local left = run_cap - tonumber(r[1] or '0') - tonumber(r[2] or '0')
  if left < bound + tonumber(ARGV[13] or '0') then
    return unless_held_before('run_cap', left, tonumber(r[2] or '0'))
  end
  run_percent = math.floor(100 * (run_cap - left) / run_cap)
end
local per_minute = tonumber(ARGV[9])
local tokens
if per_minute > 0 then
  tokens = tokens_in(bucket, per_minute, now)
  if tokens < 1 then
    return unless_held_before('rate', ms_until_a_token(tokens, per_minute), 0)
  end
end
scopes = scopes .. KEYS[7]
if redis.call('HSETNX', holds, hold_id,
    p[1] .. '\n' .. ARGV[2] .. '\n' .. scopes .. '\n' .. ARGV[7]) == 0 then
  return held_before()
end
if per_minute > 0 then
  take_token(bucket, tokens, now)
end
redis.call('ZADD', owners, int(now + tonumber(ARGV[4])), owner)
redis.call('HINCRBY', account, 'held', ARGV[2])
each_scope(scopes, 'held', ARGV[2])
if KEYS[7] ~= '' then
  if redis.call('HSETNX', KEYS[7], 'begun', int(now)) == 1 then
    redis.call('EXPIRE', KEYS[7], 2592000)
  end
end
if compared then
  remaining = remaining - bound
end
return {'held', remaining, held + bound, age, '', age_of_answer, redis.call('INCR', KEYS[6]),
  scopes, run_percent}
