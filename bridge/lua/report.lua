-- Writes events of what a stock arq worker did; changes nothing else.
--
-- ARGV     [1] event stream cap, entries
--          then 8 for each event: kind, job id, queue name, task, attempt, worker, trace, data (JSON object)
-- RETURNS  the events' ids
-- EVENTS   as given
local FIELDS = 8
local count = (#ARGV - 1) / FIELDS

if count ~= math.floor(count) then return redis.error_reply('ERR report: not a whole number of events') end
failure = wrong_type(KEY.EVENTS, 'stream')
if failure then return failure end

local at_ms, ids = digits(now_ms()), {}
for i = 1, count do
  local at = 1 + (i - 1) * FIELDS
  -- kind, job id, queue, task, attempt; data; worker, trace
  ids[i] = emit(ARGV[1], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], at_ms,
    ARGV[at + 8], ARGV[at + 6], ARGV[at + 7])
end
return ids
