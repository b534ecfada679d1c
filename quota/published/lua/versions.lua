-- Returns the version of each field's entry in one hash, -1 for none.
-- KEYS: the hash. ARGV: fields.
local reply = {}
for i, name in ipairs(ARGV) do
  local entry = redis.call('HGET', KEYS[1], name)
  reply[i] = entry and tonumber(string.match(entry, '^%d+')) or -1
end
return reply
