-- Install Django's answer for one project and resource: the verdict on the project and, if it is
-- newer, the snapshot of the account.
-- KEYS: project, account, projects, projects to resynchronise
-- ARGV: ticket, asked at, account, limited, limited until, answer, soft, ledger epoch, version,
--       allotment ('' unlimited, 'unknown'), valid until, booked, member of projects,
--       caps ('' none, else as hold.lua reads it), caps' version, (scope, allotment ('' not capped),
--       booked, cap)…
-- Returns {whether the verdict was installed, whether the snapshot was, what was noticed, how much of
-- the spending a restored ledger lacks}. Noticed: 'outdated' (nothing was installed), 'restored',
-- 'booked_more' (Redis lost data), or ''.
local ticket, asked_at = tonumber(ARGV[1]), ARGV[2]
local installed, snapshot, noticed, missing = 0, 0, '', 0
local a = redis.call('HMGET', KEYS[2], 'epoch', 'version', 'ticket', 'spent', 'pending', 'parked',
  'installed_at', 'allotment')
local same_ledger = a[1] == ARGV[8]
if same_ledger and tonumber(asked_at) > tonumber(a[7] or asked_at) then
  -- Versions only grow, and this question was asked after version a[2] was known. So if the answer is
  -- older, or another one of that version, the database was restored without a new epoch.
  local version, known = tonumber(ARGV[9]), tonumber(a[2])
  if version < known or version == known and ARGV[10] ~= a[8] then
    return {0, 0, 'outdated', 0}
  end
end
local p = redis.call('HMGET', KEYS[1], 'ticket', 'stale_ticket')
if not p[1] or tonumber(p[1]) < ticket then
  redis.call('HSET', KEYS[1], 'ticket', ARGV[1], 'asked_at', asked_at, 'account', ARGV[3],
    'limited', ARGV[4], 'limited_until', ARGV[5], 'answer', ARGV[6], 'soft', ARGV[7])
  redis.call('HDEL', KEYS[1], 'broken')
  if ARGV[14] == '' then
    redis.call('HDEL', KEYS[1], 'caps')
  else
    redis.call('HSET', KEYS[1], 'caps', ARGV[14])
  end
  if p[2] and tonumber(p[2]) < ticket then
    redis.call('HDEL', KEYS[1], 'stale_since', 'stale_ticket')
  end
  redis.call('ZADD', KEYS[3], asked_at, ARGV[13])
  installed = 1
end
if ARGV[10] == 'unknown' then
  return {installed, snapshot, noticed, missing}
end
local newer
if same_ledger then
  newer = tonumber(a[2]) < tonumber(ARGV[9])
else
  newer = not a[3] or tonumber(a[3]) < ticket
end
if newer then
  local booked = tonumber(ARGV[12])
  local spent, pending = tonumber(a[4] or '0'), tonumber(a[5] or '0')
  if not same_ledger then
    -- Another ledger (a restored database): count only what it booked and what is on its way to it.
    redis.call('HSET', KEYS[2], 'spent', int(booked + pending))
    missing = spent - booked - pending - tonumber(a[6] or '0')
    if a[1] and missing > 0 then
      noticed = 'restored'
    else
      missing = 0
    end
  elseif booked > spent then
    -- The ledger booked more than Redis remembers as spent, so Redis lost data. Undelivered events
    -- may be among those booked; they are counted twice until the resynchronisation.
    redis.call('HSET', KEYS[2], 'spent', int(booked + pending), 'resync', '1')
    redis.call('ZADD', KEYS[4], int(now_ms()), ARGV[13])
    noticed = 'booked_more'
  end
  redis.call('HSET', KEYS[2], 'epoch', ARGV[8], 'version', ARGV[9], 'allotment', ARGV[10],
    'valid_until', ARGV[11], 'ticket', ARGV[1], 'installed_at', int(now_ms()))
  snapshot = 1
end
if not newer and not same_ledger then
  return {installed, snapshot, noticed, missing}
end
for index = 16, #ARGV, 4 do
  local scope, allotment, booked = ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2])
  local s = redis.call('HMGET', scope, 'epoch', 'version', 'spent')
  if s[1] ~= ARGV[8] or tonumber(s[2]) <= tonumber(ARGV[15]) then
    redis.call('HSET', scope, 'epoch', ARGV[8], 'version', ARGV[15], 'allotment', allotment,
      'cap', ARGV[index + 3])
    -- The ledger may have booked more than was counted here: spending before the cap was known, or
    -- counts that Redis lost. A restored ledger (another epoch) may have booked less.
    if booked > tonumber(s[3] or '0') or (s[1] and s[1] ~= ARGV[8]) then
      redis.call('HSET', scope, 'spent', int(booked))
    end
  end
end
return {installed, snapshot, noticed, missing}
