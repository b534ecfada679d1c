-- Writes a publication of one account and some of its members.
-- KEYS: limits, suspended, published, states and, as part of a rebuild, that rebuild's key.
-- ARGV: account, its state or '', the state's version, the newest version it replaces,
--       then per member: token, version, the newest version it replaces,
--       limited until or '-', suspended until or '-'.
-- Returns how many entries changed, or nothing if the rebuild was lost.
if KEYS[5] and redis.call('EXISTS', KEYS[5]) == 0 then return false end
local now = tonumber(redis.call('TIME')[1])
local changed = 0

local function is_newer(entry, replaceable)
  return entry and tonumber(string.match(entry, '^%d+')) > tonumber(replaceable)
end

-- Returns the score of ours that the set holds afterwards, or '-'.
local function install(set, token, written, wanted)
  local present = tonumber(redis.call('ZSCORE', set, token))
  if present and present > now and present ~= tonumber(written) then return '-' end
  local score = tonumber(wanted)
  if score and score > now then
    if present ~= score then
      redis.call('ZADD', set, wanted, token)
      changed = changed + 1
    end
    return wanted
  end
  if present then
    redis.call('ZREM', set, token)
    changed = changed + 1
  end
  return '-'
end

if ARGV[2] ~= '' then
  local present = redis.call('HGET', KEYS[4], ARGV[1])
  local wanted = ARGV[3] .. ' ' .. ARGV[2]
  if present ~= wanted and not is_newer(present, ARGV[4]) then
    redis.call('HSET', KEYS[4], ARGV[1], wanted)
    changed = changed + 1
  end
end

for i = 5, #ARGV, 5 do
  local token = ARGV[i]
  local entry = redis.call('HGET', KEYS[3], token)
  if not is_newer(entry, ARGV[i + 2]) then
    local limited, suspended = '-', '-'
    if entry then limited, suspended = string.match(entry, '^%d+ (%S+) (%S+)$') end
    limited = install(KEYS[1], token, limited, ARGV[i + 3])
    suspended = install(KEYS[2], token, suspended, ARGV[i + 4])
    local wanted = ARGV[i + 1] .. ' ' .. limited .. ' ' .. suspended
    if entry ~= wanted then redis.call('HSET', KEYS[3], token, wanted) end
  end
end
return changed
