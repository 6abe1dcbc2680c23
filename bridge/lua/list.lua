-- Lists some jobs of a queue that wait or run: those that wait by the time they are due, those that run by id; reads only.
--
-- KEYS     [1] queue
-- ARGV     [1] state: queued, deferred or in_progress; [2] score and [3] id of the job after which to go on ('': from the
--          beginning; of those that run the score does not matter); [4] jobs wanted; [5] longest lease, ms
-- RETURNS  score and id after which to go on ('': the list is at its end); then 5 for each job:
--          id, score, attempts so far ('': none), its body's beginning and end
-- EVENTS   none
local LOOKED_AT, PAGE, HEAD_BYTES, TAIL_BYTES = 5000, 500, 512, 24
local state, after_score, after_id, wanted, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
if not (wanted and lease) then return redis.error_reply('ERR list: a number is missing') end
failure = wrong_type(KEYS[1], 'zset')
if failure then return failure end
local now = now_ms()
local at_ms = digits(now)

-- The order of a zset among equal scores. Lua's own, which is quicker, may be that of a language.
local function is_before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- How many jobs are not after that one, whether it is still there or not.
local function rank_after(score, id)
  local low, high = call('ZCOUNT', KEYS[1], '-inf', '(' .. score), call('ZCOUNT', KEYS[1], '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_before(id, call('ZRANGE', KEYS[1], middle, middle)[1]) then high = middle else low = middle + 1 end
  end
  return low
end

local found, last_score, last_id = {}, '', ''

local function list_running()
  local ids = marked_ids(KEYS[1], at_ms)
  for _, id in ipairs(leased_ids(KEYS[1], now, lease)) do ids[#ids + 1] = id end
  table.sort(ids)
  for _, id in ipairs(ids) do
    if after_id == '' or after_id < id then
      if #found == wanted then last_id = found[#found]; return end
      found[#found + 1] = id
    end
  end
end

local function list_waiting()
  local rank = after_score == '' and 0 or rank_after(after_score, after_id)
  if state == 'deferred' then rank = math.max(rank, call('ZCOUNT', KEYS[1], '-inf', at_ms)) end
  local stop = rank + LOOKED_AT
  while true do
    local entries = call('ZRANGE', KEYS[1], rank, rank + PAGE - 1, 'WITHSCORES')
    for i = 1, #entries, 2 do
      local id, score = entries[i], tonumber(entries[i + 1])
      if state == 'queued' and score > now then last_score, last_id = '', ''; return end
      local is_wanted = state == 'queued' and call('EXISTS', KEY.IN_PROGRESS .. id) == 0
        or state == 'deferred' and not (is_leased(score) and score <= now + lease + 1)
      if is_wanted then
        if #found == wanted then return end
        found[#found + 1] = id
      end
      last_score, last_id = entries[i + 1], id
    end
    if #entries < 2 * PAGE then last_score, last_id = '', ''; return end
    rank = rank + PAGE
    if rank >= stop then return end
  end
end

if state == 'in_progress' then list_running() else list_waiting() end

local function part_of_body(id, from, to)
  local part = redis.pcall('GETRANGE', KEY.JOB .. id, from, to)
  return type(part) == 'string' and part or ''
end

local reply, attempts = { last_score, last_id }, get_all(names_of(KEY.RETRY, found))
for i, id in ipairs(found) do
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = id, call('ZSCORE', KEYS[1], id), attempts[i] or ''
  reply[n + 4], reply[n + 5] = part_of_body(id, 0, HEAD_BYTES - 1), part_of_body(id, -TAIL_BYTES, -1)
end
return reply
