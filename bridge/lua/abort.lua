-- Aborts a job: ends it now if no worker has it, else tells its worker.
--
-- KEYS     [1] queue
-- ARGV     [1] event stream cap, entries; [2] queue name; [3] job id; [4] how long the result is kept, ms
--          (-1: not at all, 0: for ever); [5] who asks and why: a JSON object of by and reason, or {}
-- RETURNS  aborted: it has ended; asked: its worker knows; ended: it had ended before; unknown
-- EVENTS   job.aborted, when it ended now
local max_len, queue, id, keep_ms, note = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
if not keep_ms then return redis.error_reply('ERR abort: keep_ms is not a number') end
failure = wrong_type(KEYS[1], 'zset') or wrong_type(KEY.EVENTS, 'stream') or wrong_type(KEY.ABORT, 'zset')
  or wrong_type(KEY.WAKE .. queue, 'list') or wrong_type(KEY.JOB .. id, 'string')
  or wrong_type(KEY.IN_PROGRESS .. id, 'string')
if failure then return failure end

local now = now_ms()
local at_ms = digits(now)
local score = tonumber(call('ZSCORE', KEYS[1], id))
if not score then return call('EXISTS', KEY.RESULT .. id) == 1 and 'ended' or 'unknown' end

local token = call('GET', KEY.IN_PROGRESS .. id)
local body = call('GET', KEY.JOB .. id) or ''
local task = string.match(body, '^{"t":%w+,"f":"([^"\\]*)"')
if token or not task then
  -- A stock worker looks here, and one that claims a job whose body it alone can read.
  call('ZADD', KEY.ABORT, at_ms, id)
  local worker = token and string.match(token, '^(.+):%d+$')
  if worker then
    local orders = KEY.ORDERS .. worker
    call('RPUSH', orders, cjson.encode({ job_id = id, token = token, note = note }))
    call('EXPIRE', orders, 60)
  elseif not token then
    call('ZADD', KEYS[1], at_ms, id)
    wake(queue)
  end
  return 'asked'
end

local attempt = tonumber(call('GET', KEY.RETRY .. id) or 0) or 0
if keep_ms >= 0 then
  local result = '{"t":' .. digits(attempt) .. string.sub(body, string.find(body, ',', 1, true), -2)
    .. ',"s":false,"r":{"type":"CancelledError","message":"aborted","traceback":""},"st":' .. at_ms .. ',"ft":' .. at_ms
    .. ',"q":' .. cjson.encode(KEYS[1]) .. ',"id":' .. cjson.encode(id) .. '}'
  if keep_ms > 0 then
    call('SET', KEY.RESULT .. id, result, 'PX', digits(keep_ms))
  else
    call('SET', KEY.RESULT .. id, result)
  end
end
call('ZREM', KEYS[1], id)
call('DEL', KEY.JOB .. id, KEY.RETRY .. id, KEY.PROGRESS .. id)
call('ZREM', KEY.ABORT, id)
count_total(queue, 'job.aborted', 1)
local rest = note == '{}' and '}' or ',' .. string.sub(note, 2)
local was = (score > now and not is_leased(score)) and 'deferred' or 'queued'
emit(max_len, 'job.aborted', id, queue, task, digits(attempt), at_ms, '{"was":"' .. was .. '"' .. rest, '',
  trace_of(body))
return 'aborted'
