-- Check whether a call would be refused whatever it may cost, without counting it.
-- KEYS: project, rate bucket   ARGV: requests per minute (0 for any)
-- Returns {'limited', the project's answer, 0}, {'rate', '', ms until there is room} or {'', '', 0}.
local now, per_minute = now_ms(), tonumber(ARGV[1])
local p = redis.call('HMGET', KEYS[1], 'limited', 'limited_until', 'answer')
if p[1] == '1' and (p[2] == '' or now < tonumber(p[2])) then
  return {'limited', p[3] or '', 0}
end
if per_minute > 0 then
  local tokens = tokens_in(KEYS[2], per_minute, now)
  if tokens < 1 then
    return {'rate', '', ms_until_a_token(tokens, per_minute)}
  end
end
return {'', '', 0}
