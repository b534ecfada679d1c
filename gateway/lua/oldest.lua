-- Return the oldest entries of a stream, like XRANGE, up to the size of one batch. An entry that is
-- larger than a batch is returned alone.
-- KEYS: stream   ARGV: most entries, most bytes
local PAGE = 20
local most, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local entries, bytes, from = {}, 0, '-'
while #entries < most do
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', math.min(PAGE, most - #entries))
  if #page == 0 then
    return entries
  end
  for _, entry in ipairs(page) do
    for _, text in ipairs(entry[2]) do
      bytes = bytes + #text
    end
    if bytes > most_bytes and #entries > 0 then
      return entries
    end
    entries[#entries + 1] = entry
    from = '(' .. entry[1]
  end
end
return entries
