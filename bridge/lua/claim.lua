-- Takes due jobs for a worker: token, attempt, lease, body and event of each, or nothing of it.
-- Jobs that a stock worker runs stay as they are and are passed over.
--
-- KEYS     [1] queue
-- ARGV     [1] event stream cap, entries; [2] queue name; [3] worker; [4] token of this claim; [5] jobs wanted;
--          [6] lease, ms; [7] how far ahead a due time matters to the caller, ms;
--          [8] most attempts: a JSON object, task -> number, '' -> number for the others; a job's own number wins;
--          [9] '1': entries of arq's abort set count; [10] when the caller gives up, ms (0: not known): nothing is
--          taken after that
-- RETURNS  now ms; next due time ms within [7] (0: none); then 5 for each job:
--          id, body ('' when it is gone or no string), attempt, due ms,
--          what to do with it: run, expired, aborted, exhausted. Only `run` has an event.
-- EVENTS   job.started; before it job.retrying (stalled) when a worker lost the job
local max_len, queue, worker, token, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local wanted, ahead_ms = tonumber(ARGV[5]), tonumber(ARGV[7])
local now = now_ms()

if not (wanted and tonumber(lease) and ahead_ms and tonumber(ARGV[10])) then return redis.error_reply('ERR claim: a number is missing') end
size(KEY.EVENTS, 'stream')
local size_of_queue, aborts, tokens = size(KEYS[1], 'zset'), size(KEY.ABORT, 'zset'), size(KEY.WAKE .. queue, 'list')
if failure then return failure end
local is_late = ARGV[10] ~= '0' and now > tonumber(ARGV[10])
if is_late or size_of_queue == 0 or call('EXISTS', KEY.PAUSED .. queue) == 1 then return { digits(now), '0' } end

local at_ms, deadline = digits(now), lease_score(now + lease)
local has_aborts = ARGV[9] == '1' and aborts > 0
local most_tries

local function exhausts(task, attempt, own)
  most_tries = most_tries or cjson.decode(ARGV[8])
  return attempt > (own or most_tries[task] or most_tries[''])
end

-- Enqueue time, most attempts and trace of a job whose producer asked for something: our enqueue writes that between the
-- enqueue time and the last brace, behind everything that a caller may fill in.
local FURTHEST = -200
local function what_was_asked(body)
  local enqueued_at_ms, asked = string.match(body, '"et":(%d+)([^{}]*)}$', FURTHEST)
  if not enqueued_at_ms then return nil end
  return enqueued_at_ms, tonumber(string.match(asked, '"max_tries":(%d+)')), trace_of(body)
end

-- The number of this attempt, at least what the producer says. A count that is no number is started anew.
local function count_attempt(id, producers)
  local key = KEY.RETRY .. id
  local attempt = redis.pcall('INCR', key)
  if type(attempt) == 'table' then
    attempt = 1
    call('SET', key, '1')
  elseif attempt > 1 then
    call('PERSIST', key)
  end
  producers = producers ~= 'null' and tonumber(producers)
  if producers and producers > attempt then attempt = producers; call('SET', key, digits(attempt)) end
  return attempt
end

-- The later of two instants, which are text: turning them into numbers takes as long as a short command.
local function later(a, b)
  if #a == #b then return a > b and a or b end
  return tonumber(a) > tonumber(b) and a or b
end

-- How long ago that instant was, ms; jobs of one batch were often enqueued in the same ms.
local waits = {}
local function since(instant_ms)
  local wait = waits[instant_ms]
  if not wait then
    wait = string.format('%d', math.max(0, now - instant_ms))
    waits[instant_ms] = wait
  end
  return wait
end

-- Whether arq's abort set means this job, and not an earlier one of the same id.
local function is_aborted(id, enqueued_at_ms)
  local asked_at_ms = call('ZSCORE', KEY.ABORT, id)
  if not asked_at_ms then return false end
  call('ZREM', KEY.ABORT, id)
  return tonumber(asked_at_ms) >= enqueued_at_ms
end

-- Those of the due jobs, as ids and scores, that nobody runs: marked and leased.
local function take(due)
  local ids, scores, leases = {}, {}, {}
  for i = 1, #due, 2 do
    if call('SET', KEY.IN_PROGRESS .. due[i], token, 'NX', 'PX', lease) then
      local n = #ids + 1
      ids[n], scores[n], leases[2 * n - 1], leases[2 * n] = due[i], due[i + 1], deadline, due[i]
    end
  end
  call_for_all('ZADD', KEYS[1], leases)
  return ids, scores
end

local reply, taken, passed_over, are_more_due = { at_ms, '0' }, 0, 0, true
while are_more_due and taken < wanted do
  local asked = wanted - taken
  local due = call('ZRANGE', KEYS[1], '-inf', at_ms, 'BYSCORE', 'LIMIT', passed_over, asked, 'WITHSCORES')
  are_more_due = #due == 2 * asked
  local ids, scores = take(due)
  local bodies = get_all(names_of(KEY.JOB, ids))
  taken, passed_over = taken + #ids, passed_over + #due / 2 - #ids
  for i, id in ipairs(ids) do
    local body = bodies[i] or ''
    local producers, task = string.match(body, '^{"t":(%w+),"f":"([^"\\]*)"')
    local attempt, due_ms, was_lost = count_attempt(id, producers), scores[i], false
    local whole = string.match(due_ms, '^(%d+)%.5$')
    if whole then
      due_ms, was_lost = whole, true
    elseif not string.match(due_ms, '^%d+$') then  -- other programs may set any score
      due_ms = digits(math.max(0, math.floor(tonumber(due_ms) or 0)))
    end
    -- The enqueue time is at the very end of what arq and we write: 13 digits and a brace.
    local enqueued_at_ms, own_tries, trace = string.match(body, '^"et":(%d+)}$', -19), nil, nil
    if not enqueued_at_ms and task then enqueued_at_ms, own_tries, trace = what_was_asked(body) end
    enqueued_at_ms = enqueued_at_ms or due_ms
    local attempt_text = attempt == 1 and '1' or digits(attempt)
    task = task or ''
    local verdict = 'run'
    if body == '' and call('EXISTS', KEY.JOB .. id) == 0 then
      verdict = 'expired'
    elseif has_aborts and is_aborted(id, tonumber(enqueued_at_ms)) then
      verdict = 'aborted'
    elseif attempt > 1 and exhausts(task, attempt, own_tries) then
      verdict = 'exhausted'
    else
      if attempt > 1 and was_lost then
        emit(max_len, 'job.retrying', id, queue, task, digits(attempt - 1), at_ms,
          '{"reason":"stalled","due_at_ms":' .. at_ms .. '}', worker, trace)
      end
      emit(max_len, 'job.started', id, queue, task, attempt_text, at_ms,
        '{"enqueued_at_ms":' .. enqueued_at_ms .. ',"queued_ms":' .. since(later(due_ms, enqueued_at_ms)) .. '}', worker,
        trace)
    end
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = id, body, attempt, due_ms, verdict
  end
end

if taken < size_of_queue then
  -- A caller that wants no more leaves the rest, and what is due soon, to another worker.
  local is_full = taken == wanted
  local next_due = call('ZRANGE', KEYS[1], is_full and '-inf' or '(' .. at_ms, digits(now + ahead_ms), 'BYSCORE',
    'LIMIT', is_full and passed_over or 0, 1, 'WITHSCORES')
  if next_due[2] then
    if is_full then wake(queue, tokens) else reply[2] = digits(math.ceil(tonumber(next_due[2]))) end
  end
end
return reply
