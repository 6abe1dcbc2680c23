-- Counts the jobs of a queue by state; reads only.
--
-- KEYS     [1] queue
-- ARGV     [1] how many due ids to look at for running ones: stock workers only ever run the first few hundred
-- RETURNS  queued, in progress, deferred, due time ms of the oldest queued job (0: none), now ms
-- EVENTS   none
local now = digits(now_ms())
local due = redis.call('ZCOUNT', KEYS[1], '-inf', now)
local deferred = redis.call('ZCARD', KEYS[1]) - due
local running, oldest = 0, '0'

local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 1, #ids, 2 do
  if redis.call('EXISTS', KEY.IN_PROGRESS .. ids[i]) == 1 then
    running = running + 1
  elseif oldest == '0' then
    oldest = ids[i + 1]
  end
end
return { due - running, running, deferred, oldest, now }
