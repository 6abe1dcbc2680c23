-- Takes requests of callers, each under a limit of its own (GCRA): a key holds when its caller will have the whole limit
-- again. Requests that are not admitted change nothing.
--
-- ARGV     for each caller, which is named once: name; requests in a period, from 1; the period, us; requests it sends
-- RETURNS  for each caller, one after the other: how many are admitted; in how many us the next one will be, from 1, and 0
--          when all are
-- EVENTS   none
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local writes, answers = {}, {}
for i = 1, #ARGV, 4 do
  local key, period, wanted = KEY.RATE .. ARGV[i], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  failure = wrong_type(key, 'string')
  if failure then return failure end
  local each = period / tonumber(ARGV[i + 1])
  -- The limit may have become smaller, or the clock been set back: nobody waits for longer than a period.
  local full_at = math.min(math.max(tonumber(call('GET', key) or 0) or 0, now), now + period)
  -- A tenth of a us is for what division loses.
  local admitted = math.min(wanted, math.floor((now + period - full_at + 0.1) / each))
  full_at = full_at + admitted * each
  if admitted > 0 then writes[#writes + 1] = { key, full_at } end
  answers[#answers + 1] = admitted
  answers[#answers + 1] = admitted == wanted and 0 or math.max(1, math.ceil(full_at + each - period - now))
end
for _, write in ipairs(writes) do
  call('SET', write[1], string.format('%.3f', write[2]), 'PX', math.max(1, math.ceil((write[2] - now) / 1000)))
end
return answers
