-- Forgets dead letters; what else is kept of their jobs stays. A newer letter of the same id stays too.
--
-- ARGV     [1] queue name; then 2 for each letter: id, when the job failed, ms
-- RETURNS  for each 1, or 0 when that letter was not there any more
-- EVENTS   none
local FIELDS, HEAD = 2, 1
local dead_key = KEY.DEAD .. ARGV[1]
local count = (#ARGV - HEAD) / FIELDS

if count ~= math.floor(count) then return redis.error_reply('ERR purge: not a whole number of letters') end
local failure = wrong_type(dead_key, 'zset')
if failure then return failure end
for at = HEAD, #ARGV - 1, FIELDS do
  if not string.match(ARGV[at + 2], '^%d+$') then return redis.error_reply('ERR purge: a time is no whole number') end
end

local reply = {}
for i = 1, count do
  local at = HEAD + (i - 1) * FIELDS
  local id = ARGV[at + 1]
  reply[i] = 0
  if tonumber(call('ZSCORE', dead_key, id)) == tonumber(ARGV[at + 2]) then
    call('ZREM', dead_key, id)
    reply[i] = call('DEL', dead_key .. ':' .. id)
  end
end
return reply
