-- Lists ends of jobs that the event stream tells of and whose results are kept, newest first; reads only.
--
-- ARGV     [1] queue name; [2] kind; [3] the event before which to go on (+: the newest); [4] jobs wanted;
--          [5] entries of the stream to look at
-- RETURNS  the event before which to go on ('': there is none left); then 6 for each job:
--          event id, id, task, attempt, when it ended, ms, the end of its result
-- EVENTS   none
local PAGE, TAIL_BYTES = 200, 1024
local queue, kind, before, wanted, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
if not (wanted and most) then return redis.error_reply('ERR ends: a number is missing') end
failure = wrong_type(KEY.EVENTS, 'stream')
if failure then return failure end

local function end_of_result(id)
  local tail = redis.pcall('GETRANGE', KEY.RESULT .. id, -TAIL_BYTES, -1)
  return type(tail) == 'string' and tail ~= '' and tail
end

local reply, found = { '' }, 0
local function look_at(event_id, values)
  local fields = {}
  for i = 1, #values, 2 do fields[values[i]] = values[i + 1] end
  local tail = fields.queue == queue and fields.job_id and end_of_result(fields.job_id)
  if tail then
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3] = event_id, fields.job_id, fields.task or ''
    reply[n + 4], reply[n + 5], reply[n + 6] = fields.attempt or '0', fields.at_ms or '0', tail
    found = found + 1
  end
end

while most > 0 do
  local count = math.min(PAGE, most)
  local entries = call('XREVRANGE', KEY.EVENTS, before == '+' and '+' or '(' .. before, '-', 'COUNT', count)
  for _, entry in ipairs(entries) do
    before = entry[1]
    if entry[2][1] == 'kind' and entry[2][2] == kind then look_at(before, entry[2]) end
    if found == wanted then reply[1] = before; return reply end
  end
  if #entries < count then return reply end
  most = most - count
end
reply[1] = before
return reply
