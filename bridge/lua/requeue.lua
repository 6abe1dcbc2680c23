-- Puts dead jobs back into their queue: body, queue entry, wake-up and event of each, without attempts, dead letter
-- and result; or nothing of it.
--
-- KEYS     [1] queue
-- ARGV     [1] event stream cap, entries; [2] queue name
--          then 6 for each job:
--          id, task,
--          body up to the enqueue time, body after it (the enqueue time is this server's, ms),
--          when it failed, ms: the score of its dead letter ('': it has none, and its result stands in for one),
--          how the result of its last attempt ends
-- RETURNS  for each job requeued, or why nothing was done:
--          gone: that letter, or without one that result, is not there any more;
--          alive: a job of that id waits or runs; superseded: a later job of that id has a result
-- EVENTS   job.enqueued, with the reason requeued
local FIELDS, HEAD = 6, 2
local max_len, queue = ARGV[1], ARGV[2]
local count = (#ARGV - HEAD) / FIELDS
local dead_key = KEY.DEAD .. queue

if count ~= math.floor(count) then return redis.error_reply('ERR requeue: not a whole number of jobs') end
local failure = wrong_type(KEYS[1], 'zset') or wrong_type(KEY.EVENTS, 'stream') or wrong_type(KEY.ABORT, 'zset')
  or wrong_type(KEY.WAKE .. queue, 'list') or wrong_type(dead_key, 'zset')
if failure then return failure end
for at = HEAD, #ARGV - 1, FIELDS do
  if not string.match(ARGV[at + 5], '^%d*$') then return redis.error_reply('ERR requeue: a time is no whole number') end
end

local at_ms = digits(now_ms())

local function obstacle(id, failed_at_ms, ending)
  local result = call('MGET', KEY.RESULT .. id)[1]
  local has_this_result = result and string.sub(result, -#ending) == ending
  if failed_at_ms == '' then
    if not has_this_result then return 'gone' end
  elseif tonumber(call('ZSCORE', dead_key, id)) ~= tonumber(failed_at_ms) then
    return 'gone'
  end
  if call('EXISTS', KEY.JOB .. id, KEY.IN_PROGRESS .. id) > 0 or call('ZSCORE', KEYS[1], id) then return 'alive' end
  if not has_this_result and call('EXISTS', KEY.RESULT .. id) == 1 then return 'superseded' end
end

local reply, requeued = {}, 0
for i = 1, count do
  local at = HEAD + (i - 1) * FIELDS
  local id = ARGV[at + 1]
  reply[i] = obstacle(id, ARGV[at + 5], ARGV[at + 6]) or 'requeued'
  if reply[i] == 'requeued' then
    call('SET', KEY.JOB .. id, ARGV[at + 3] .. at_ms .. ARGV[at + 4])
    call('ZADD', KEYS[1], at_ms, id)
    call('ZREM', dead_key, id)
    call('DEL', dead_key .. ':' .. id, KEY.RESULT .. id, KEY.RETRY .. id, KEY.PROGRESS .. id)
    -- A request to abort that came before is not meant for this run.
    call('ZREM', KEY.ABORT, id)
    emit(max_len, 'job.enqueued', id, queue, ARGV[at + 2], 0, at_ms, '{"due_at_ms":' .. at_ms .. ',"reason":"requeued"}',
      '', trace_of(ARGV[at + 4]))
    requeued = requeued + 1
  end
end
if requeued > 0 then
  wake(queue)
  count_total(queue, 'requeued', requeued)
end
return reply
