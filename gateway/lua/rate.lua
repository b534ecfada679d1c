-- Count a request that reserves no credits.   KEYS: rate bucket   ARGV: requests per minute
-- Returns 0, or how many milliseconds to wait until there is room for it.
local per_minute, now = tonumber(ARGV[1]), now_ms()
local tokens = tokens_in(KEYS[1], per_minute, now)
if tokens < 1 then
  return ms_until_a_token(tokens, per_minute)
end
take_token(KEYS[1], tokens, now)
return 0
