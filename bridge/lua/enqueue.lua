-- Stores jobs: body, queue entry, wake-up and event of each, or nothing of it when its id is taken, or when a request
-- with the same idempotency key has stored its job before.
--
-- ARGV     [1] event stream cap, entries
--          [2] the cron run whose one job this is ('': none): of a run that anybody has stored before, nothing is
--          [3] how many jobs; then 9 for each:
--          id, task, queue name, queue key,
--          body up to the enqueue time, body after it (the enqueue time is this server's, ms; after '' none is added),
--          delay ms (0: none), due at ms (0: not given), expires after ms (0: never)
--          then 3 for each job with an idempotency key: which job, from 1; key of the record; fingerprint of the request
-- RETURNS  [1] now, ms; then for each job: the event's id, or '' when a job of that id lives or has a result, or that run
--          is stored; or of one whose idempotency key has a record: 'again', when that was (ms), the event's id and the
--          job's, parted by spaces; 'reused' when the record is of a request with another fingerprint
-- EVENTS   job.enqueued, or job.deferred when it is due later; before it job.failed (expired) of a waiting job of the
--          same id and queue, whose body has expired
local FIELDS, HEAD, FIELDS_OF_KEY = 9, 3, 3
local max_len, cron_run, count, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), now_ms()
local after_jobs = HEAD + (count or 0) * FIELDS
local keyed = (#ARGV - after_jobs) / FIELDS_OF_KEY

if not count or keyed < 0 or keyed ~= math.floor(keyed) then
  return redis.error_reply('ERR enqueue: not a whole number of jobs')
end
local record_keys, fingerprints = {}, {}
for at = after_jobs, #ARGV - 1, FIELDS_OF_KEY do
  local i = tonumber(ARGV[at + 1])
  if not i or i < 1 or i > count then return redis.error_reply('ERR enqueue: an idempotency key of no job') end
  record_keys[i], fingerprints[i] = ARGV[at + 2], ARGV[at + 3]
end
size(KEY.EVENTS, 'stream')
-- An abort that came after the end of an earlier job of the same id is not meant for this one.
local has_aborts = size(KEY.ABORT, 'zset') > 0

local tokens, names, ids_of = {}, {}, {}
for i = 1, count do
  local at = HEAD + (i - 1) * FIELDS
  local id, queue, queue_key = ARGV[at + 1], ARGV[at + 3], ARGV[at + 4]
  for field = at + 7, at + 9 do
    local time = ARGV[field]
    if time ~= '0' and (#time > 15 or not string.match(time, field < at + 9 and '^-?%d+$' or '^%d+$')) then
      return redis.error_reply('ERR enqueue: a time of job ' .. i .. ' is not a number of ms')
    end
  end
  if not tokens[queue_key] then
    size(queue_key, 'zset')
    tokens[queue_key] = size(KEY.WAKE .. queue, 'list')
    ids_of[queue_key] = {}
  end
  table.insert(ids_of[queue_key], id)
  names[3 * i - 2], names[3 * i - 1], names[3 * i] = KEY.JOB .. id, KEY.RESULT .. id, KEY.IN_PROGRESS .. id
end
local cron_key = cron_run ~= '' and count == 1 and KEY.CRON .. ARGV[HEAD + 3]
if cron_key then size(cron_key, 'zset') end
if failure then return failure end

-- A late worker must not store a run again that has ended meanwhile without leaving a result.
local now_text = digits(now)
if cron_key and call('ZADD', cron_key, 'NX', now_text, cron_run) == 0 then return { now_text, '' } end

-- Mostly no id is taken, and that is asked at once.
local may_exist = count_all(names) > 0

-- A job whose body has expired while it runs lives on. A stock worker's mark may outlive the job, and tells nothing.
local function is_taken(body_name, result_name, mark_name)
  if call('EXISTS', body_name, result_name) > 0 then return true end
  local token = call('MGET', mark_name)[1]
  return token and token ~= '1'
end

-- Which ids are in their queues already: of those that are not taken, the bodies have expired.
local queue_of = {}
for queue_key, ids in pairs(ids_of) do
  for i = 1, #ids, PIECE do
    for j, score in ipairs(call('ZMSCORE', queue_key, unpack(ids, i, math.min(i + PIECE - 1, #ids)))) do
      if score then queue_of[ids[i + j - 1]] = queue_key end
    end
  end
end

local function end_expired(id, queue, mark_name)
  if call('EXISTS', mark_name) == 1 then return end  -- a stock worker runs it
  local attempt = (tonumber(call('MGET', KEY.RETRY .. id)[1]) or 0) + 1
  emit(max_len, 'job.failed', id, queue, '', digits(attempt), now_text,
    '{"reason":"expired","error":{"type":"JobExecutionFailed","message":"job expired"},"ran_ms":0}')
  call('DEL', KEY.RETRY .. id)
  count_total(queue, 'job.failed', 1)
end

-- What a request with this idempotency key gets, if one has been before. pcall: another type is as good as nothing.
local function earlier_answer(record_key, fingerprint)
  local record = redis.pcall('GET', record_key)
  if type(record) ~= 'string' then return nil end
  local rest = string.sub(record, #fingerprint + 1)
  return string.sub(record, 1, #fingerprint) == fingerprint and 'again' .. rest or 'reused'
end

local reply, seen, entries, bodies = { now_text }, {}, {}, {}
for i = 1, count do
  local at, record_key = HEAD + (i - 1) * FIELDS, record_keys[i]
  local event_id = record_key and earlier_answer(record_key, fingerprints[i]) or ''
  local name = names[3 * i - 2]
  if event_id == '' and not seen[name] and not (may_exist and is_taken(name, names[3 * i - 1], names[3 * i])) then
    seen[name] = true
    local id, queue, queue_key, tail = ARGV[at + 1], ARGV[at + 3], ARGV[at + 4], ARGV[at + 6]
    local delay, due_at, expires, due_text = ARGV[at + 7], ARGV[at + 8], ARGV[at + 9], now_text
    if delay ~= '0' or due_at ~= '0' then due_text = digits(math.max(now, due_at, now + delay)) end
    if queue_of[id] == queue_key then end_expired(id, queue, names[3 * i]) end
    local body = tail == '' and ARGV[at + 5] or ARGV[at + 5] .. now_text .. tail
    if expires ~= '0' then
      call('SET', name, body, 'PX', digits(expires))
    else
      bodies[#bodies + 1], bodies[#bodies + 2] = name, body
    end
    local queued = entries[queue_key] or { queue = queue }
    entries[queue_key] = queued
    queued[#queued + 1], queued[#queued + 2] = due_text, id
    if due_text ~= now_text then queued.later = (queued.later or 0) + 1 end
    event_id = emit(max_len, due_text == now_text and 'job.enqueued' or 'job.deferred', id, queue, ARGV[at + 2], '0',
      now_text, '{"due_at_ms":' .. due_text .. '}', '', #tail > 1 and trace_of(tail))
    if record_key then
      local record = fingerprints[i] .. ' ' .. now_text .. ' ' .. event_id .. ' ' .. id
      call('SET', record_key, record, 'PX', KEY.IDEMPOTENCY_TTL_MS)
    end
    if has_aborts then call('ZREM', KEY.ABORT, id) end
  end
  reply[i + 1] = event_id
end

if cron_key then
  call('ZREMRANGEBYSCORE', cron_key, '-inf', digits(now - KEY.CRON_TTL_MS))
  call('PEXPIRE', cron_key, KEY.CRON_TTL_MS)
end
set_all(bodies)
for queue_key, queued in pairs(entries) do
  call_for_all('ZADD', queue_key, queued)
  local later = queued.later or 0
  if later < #queued / 2 then count_total(queued.queue, 'job.enqueued', #queued / 2 - later) end
  if later > 0 then count_total(queued.queue, 'job.deferred', later) end
  wake(queued.queue, tokens[queue_key])
end
return reply
