-- Stores the latest progress of running jobs, with the event of each.
-- Of a job whose token is no longer the caller's, nothing is written.
--
-- ARGV     [1] event stream cap, entries; [2] queue name; [3] worker;
--          then 6 for each job: id, token (of a stock arq worker: 1), task, attempt, data (a JSON object), trace ('': none)
-- RETURNS  for each job 1, or 0 when it has another token
-- EVENTS   job.progressed
local FIELDS, HEAD = 6, 3
local max_len, queue, worker = ARGV[1], ARGV[2], ARGV[3]
local count = (#ARGV - HEAD) / FIELDS

if count ~= math.floor(count) then return redis.error_reply('ERR progress: not a whole number of jobs') end
if not string.match(max_len, '^%d+$') then return redis.error_reply('ERR progress: the cap is no whole number') end
local failure = wrong_type(KEY.EVENTS, 'stream')
if failure then return failure end
local ids = {}
for at = HEAD, #ARGV - 1, FIELDS do
  ids[#ids + 1] = ARGV[at + 1]
  if not string.match(ARGV[at + 4], '^%d+$') then
    return redis.error_reply('ERR progress: an attempt is no whole number')
  elseif not string.match(ARGV[at + 5], '^{".*}$') then
    return redis.error_reply('ERR progress: what was reported is not a JSON object')
  end
end
local tokens = get_all(names_of(KEY.IN_PROGRESS, ids))

local at_ms, reply = digits(now_ms()), {}
for i, id in ipairs(ids) do
  local at = HEAD + (i - 1) * FIELDS
  local attempt, data = ARGV[at + 4], ARGV[at + 5]
  if tokens[i] == ARGV[at + 2] then
    -- The token tells readers whether this is of the run that they see: the key outlives it.
    local stored = '{"token":' .. cjson.encode(tokens[i]) .. ',"at_ms":' .. at_ms .. ',' .. string.sub(data, 2)
    call('SET', KEY.PROGRESS .. id, stored, 'PX', KEY.PROGRESS_TTL_MS)
    emit(max_len, 'job.progressed', id, queue, ARGV[at + 3], attempt, at_ms, data, worker, ARGV[at + 6])
    reply[i] = 1
  else
    reply[i] = 0
  end
end
return reply
