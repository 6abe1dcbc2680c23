-- Writes how attempts ended: result or next due time, clean-up, counters and event of each.
-- Of an attempt whose token is no longer the job's, nothing is written.
--
-- KEYS     [1] queue
-- ARGV     [1] event stream cap, entries; [2] queue name; [3] worker;
--          [4] traces: a JSON object, id -> traceparent ('': no job has one);
--          then 11 for each attempt: id, token, kind, task, attempt,
--          data (a JSON object; of job.retrying without its closing brace: due_at_ms is added),
--          result ('': none is kept), number, extra, and for the counters: wait, run ('': it did not run)
--          number:  how long the result is kept, ms (0: for ever);
--                   of job.retrying the delay in ms, or where extra is 'interrupted' the due time in ms
--          extra:   of job.failed the dead letter, a JSON object ('': none);
--                   of job.retrying 'interrupted' when the attempt does not count
-- RETURNS  for each attempt 1, or 0 when the job has another token
-- EVENTS   job.succeeded, job.failed, job.aborted, job.retrying
local FIELDS, HEAD = 11, 4
local max_len, queue, worker = ARGV[1], ARGV[2], ARGV[3]
local count = (#ARGV - HEAD) / FIELDS
local now = now_ms()
local at_ms, minute = digits(now), digits(math.floor(now / 60000))
local dead_key, stats_key = KEY.DEAD .. queue, KEY.STATS .. queue .. ':' .. minute

if count ~= math.floor(count) then return redis.error_reply('ERR finish: not a whole number of attempts') end
size(KEY.EVENTS, 'stream')
size(KEYS[1], 'zset')
size(dead_key, 'zset')
size(stats_key, 'hash')
local has_aborts, tokens_of_bell = size(KEY.ABORT, 'zset') > 0, size(KEY.WAKE .. queue, 'list')
if failure then return failure end
local marks, numbers = {}, {}
for at = HEAD, #ARGV - 1, FIELDS do
  local number = ARGV[at + 8]
  if not numbers[number] and not string.match(number, '^%d+$') then
    return redis.error_reply('ERR finish: a time is no whole number')
  end
  numbers[number] = true
  marks[#marks + 1] = KEY.IN_PROGRESS .. ARGV[at + 1]
end
local tokens = get_all(marks)
local traces = ARGV[4] ~= '' and cjson.decode(ARGV[4]) or {}

local reply, is_due, has_dead = {}, false, false
local ends, waits, runs = {}, {}, {}
local is_done, old_keys, old_ids = {}, {}, {}

local function count_up(counts, field) counts[field] = (counts[field] or 0) + 1 end

local function put_back(id, attempt, number, extra)
  local due = extra == 'interrupted' and number or now + number
  if extra == 'interrupted' then
    if attempt == '1' then call('DEL', KEY.RETRY .. id) else call('SET', KEY.RETRY .. id, attempt - 1) end
  end
  call('ZADD', KEYS[1], digits(due), id)
  is_due = true
  return ',"due_at_ms":' .. digits(due) .. '}'
end

local function remove(id, result, keep_ms, dead_letter)
  if result ~= '' then
    if keep_ms ~= '0' then
      call('SET', KEY.RESULT .. id, result, 'PX', keep_ms)
    else
      call('SET', KEY.RESULT .. id, result)
    end
  end
  local n = #old_keys
  old_keys[n + 1], old_keys[n + 2] = KEY.RETRY .. id, KEY.JOB .. id
  old_ids[#old_ids + 1] = id
  if has_aborts then call('ZREM', KEY.ABORT, id) end
  if dead_letter ~= '' then
    call('ZADD', dead_key, at_ms, id)
    call('SET', dead_key .. ':' .. id, dead_letter, 'PX', KEY.DEAD_TTL_MS)
    has_dead = true
  end
end

for i = 1, count do
  local at = HEAD + (i - 1) * FIELDS
  local id, kind, attempt, data = ARGV[at + 1], ARGV[at + 3], ARGV[at + 5], ARGV[at + 6]
  local number, extra = ARGV[at + 8], ARGV[at + 9]
  if tokens[i] == ARGV[at + 2] and not is_done[id] then
    is_done[id] = true
    old_keys[#old_keys + 1] = marks[i]
    if kind == 'job.retrying' then
      data = data .. put_back(id, attempt, tonumber(number), extra)
    else
      remove(id, ARGV[at + 7], number, extra)
    end
    emit(max_len, kind, id, queue, ARGV[at + 4], attempt, at_ms, data, worker, traces[id])
    count_up(ends, kind)
    if ARGV[at + 11] ~= '' then
      count_up(waits, ARGV[at + 10])
      count_up(runs, ARGV[at + 11])
    end
    reply[i] = 1
  else
    reply[i] = 0
  end
end

if #old_keys > 0 then call_for_all('DEL', old_keys[1], old_keys) end
call_for_all('ZREM', KEYS[1], old_ids)
if is_due then wake(queue, tokens_of_bell) end
if has_dead then prune_dead(dead_key, now) end
if next(ends) then
  for prefix, counts in pairs({ [''] = ends, ['wait:'] = waits, ['run:'] = runs }) do
    for field, number in pairs(counts) do
      call('HINCRBY', stats_key, prefix .. field, number)
      count_total(queue, prefix .. field, number)
    end
  end
  call('PEXPIRE', stats_key, KEY.STATS_TTL_MS)
end
return reply
