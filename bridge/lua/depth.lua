-- Counts the jobs of a queue by state; reads only.
--
-- KEYS     [1] queue
-- ARGV     [1] how many due ids, and how many leased ones, to look at: stock workers only ever run the first few
--          hundred due jobs, ours as many as they have places; [2] longest lease, ms
-- RETURNS  queued, in progress, deferred, due time ms of the oldest queued job (0: none), now ms
-- EVENTS   none
local now = now_ms()
local due = call('ZCOUNT', KEYS[1], '-inf', digits(now))
local deferred = call('ZCARD', KEYS[1]) - due
local running, leased, oldest = 0, 0, '0'

local ids = call('ZRANGEBYSCORE', KEYS[1], '-inf', digits(now), 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 1, #ids, 2 do
  if call('EXISTS', KEY.IN_PROGRESS .. ids[i]) == 1 then
    running = running + 1
  elseif oldest == '0' then
    oldest = digits(math.floor(tonumber(ids[i + 1])))
  end
end
ids = call('ZRANGEBYSCORE', KEYS[1], '(' .. digits(now), digits(now + ARGV[2] + 1), 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 2, #ids, 2 do
  if is_leased(tonumber(ids[i])) then leased = leased + 1 end
end
return { due - running, running + leased, deferred - leased, oldest, digits(now) }
