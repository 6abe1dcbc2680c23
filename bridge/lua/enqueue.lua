-- Stores jobs: body, queue entry, wake-up and event of each, or nothing of it when its id is taken.
--
-- ARGV     [1] event stream cap, entries
--          [2] the cron run whose one job this is ('': none): of a run that anybody has stored before, nothing is
--          then 9 for each job:
--          id, task, queue name, queue key,
--          body up to the enqueue time, body after it (the enqueue time is this server's, ms; after '' none is added),
--          delay ms (0: none), due at ms (0: not given), expires after ms (0: never)
-- RETURNS  [1] now, ms; then for each job: the event's id, or '' when a job of that id lives or has a result, or that run
--          is stored
-- EVENTS   job.enqueued, or job.deferred when it is due later
local FIELDS, HEAD = 9, 2
local max_len, cron_run, now = ARGV[1], ARGV[2], now_ms()
local count = (#ARGV - HEAD) / FIELDS

if count ~= math.floor(count) then return redis.error_reply('ERR enqueue: not a whole number of jobs') end
trim_events(max_len)
-- An abort that came after the end of an earlier job of the same id is not meant for this one.
local has_aborts = size(KEY.ABORT, 'zset') > 0

local tokens, jobs, names = {}, {}, {}
for i = 1, count do
  local at = HEAD + (i - 1) * FIELDS
  local job = {
    id = ARGV[at + 1], task = ARGV[at + 2], queue = ARGV[at + 3], queue_key = ARGV[at + 4],
    head = ARGV[at + 5], tail = ARGV[at + 6],
    delay = tonumber(ARGV[at + 7]), due_at = tonumber(ARGV[at + 8]), expires = tonumber(ARGV[at + 9]),
  }
  if not (job.delay and job.due_at and job.expires) then
    return redis.error_reply('ERR enqueue: a time of job ' .. i .. ' is not a number')
  end
  if not tokens[job.queue_key] then
    size(job.queue_key, 'zset')
    tokens[job.queue_key] = size(KEY.WAKE .. job.queue, 'list')
  end
  jobs[i], names[3 * i - 2], names[3 * i - 1], names[3 * i] =
    job, KEY.JOB .. job.id, KEY.RESULT .. job.id, KEY.IN_PROGRESS .. job.id
end
local cron_key = cron_run ~= '' and count == 1 and KEY.CRON .. jobs[1].queue
if cron_key then size(cron_key, 'zset') end
if failure then return failure end

-- A late worker must not store a run again that has ended meanwhile without leaving a result.
if cron_key and call('ZADD', cron_key, 'NX', digits(now), cron_run) == 0 then return { digits(now), '' } end

-- Mostly no id is taken, and that is asked at once.
local may_exist = count_all(names) > 0
local now_text, seen, entries, bodies = digits(now), {}, {}, {}
local reply = { now_text }

-- A job whose body has expired while it runs lives on. A stock worker's mark may outlive the job, and tells nothing.
local function is_taken(body_name, result_name, mark_name)
  if call('EXISTS', body_name, result_name) > 0 then return true end
  local token = call('MGET', mark_name)[1]
  return token and token ~= '1'
end

for i, job in ipairs(jobs) do
  local event_id = ''
  local name = names[3 * i - 2]
  if not seen[name] and not (may_exist and is_taken(name, names[3 * i - 1], names[3 * i])) then
    seen[name] = true
    local due = math.max(now, job.due_at, now + job.delay)
    local due_text = due == now and now_text or digits(due)
    local body = job.tail == '' and job.head or job.head .. now_text .. job.tail
    if job.expires > 0 then
      call('SET', name, body, 'PX', digits(job.expires))
    else
      bodies[#bodies + 1], bodies[#bodies + 2] = name, body
    end
    local queued = entries[job.queue_key] or { queue = job.queue }
    entries[job.queue_key] = queued
    queued[#queued + 1], queued[#queued + 2] = due_text, job.id
    if has_aborts then call('ZREM', KEY.ABORT, job.id) end
    event_id = emit(max_len, due > now and 'job.deferred' or 'job.enqueued', job.id, job.queue, job.task, '0',
      now_text, '{"due_at_ms":' .. due_text .. '}')
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
  wake(queued.queue, tokens[queue_key])
end
return reply
