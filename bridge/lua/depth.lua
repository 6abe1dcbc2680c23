-- Counts the jobs of queues by state, all at one instant; reads only.
--
-- KEYS     queues
-- ARGV     [1] longest lease, ms; [2] how long a silent worker still counts, ms; then the name of each queue
-- RETURNS  now ms; id of the newest event (0-0: there is none); then 8 for each queue:
--          queued, in progress, deferred, due time ms of the oldest queued job (0: none), dead letters, workers,
--          1 if it is paused, what a worker wrote of itself ('': nothing)
-- EVENTS   none
local HEAD, PAGE, FEW = 2, 1000, 200
local lease, silence = tonumber(ARGV[1]), tonumber(ARGV[2])
if not (lease and silence and #ARGV == HEAD + #KEYS) then return redis.error_reply('ERR depth: a number or a name is missing') end
local now = now_ms()
local at_ms = digits(now)

-- How many of the due jobs a stock worker runs, and when the first of the others was due. They stay where they were, and
-- stock workers take from the front: so behind many that nobody runs there is none.
local function look_at_due(key)
  local running, oldest, offset = 0, '0', 0
  repeat
    local ids = call('ZRANGE', key, '-inf', at_ms, 'BYSCORE', 'LIMIT', offset, PAGE)
    local marked = count_all(names_of(KEY.IN_PROGRESS, ids))
    for _, id in ipairs(marked < #ids and oldest == '0' and ids or {}) do
      if marked == 0 or call('EXISTS', KEY.IN_PROGRESS .. id) == 0 then
        oldest = digits(math.floor(tonumber(call('ZSCORE', key, id))))
        break
      end
    end
    running, offset = running + marked, offset + PAGE
  until marked == 0 or #ids < PAGE
  return running, oldest
end

-- How many of the scores from `first` on, within `width` ms, are ends of leases. Where many jobs are due soon, most of them
-- are not looked at: leases end at half a ms, and the jobs of one claim at the same.
local function count_leased(key, first, width)
  if width == 1 then return call('ZCOUNT', key, lease_score(first), lease_score(first)) end
  local from, to = digits(first), '(' .. digits(first + width)
  local number, leased = call('ZCOUNT', key, from, to), 0
  if number > FEW then
    for at = first, first + width - 1, width / 10 do leased = leased + count_leased(key, at, width / 10) end
  elseif number > 0 then
    local ids = call('ZRANGE', key, from, to, 'BYSCORE', 'WITHSCORES')
    for i = 2, #ids, 2 do
      if is_leased(tonumber(ids[i])) then leased = leased + 1 end
    end
  end
  return leased
end

local workers = {}
for _, id in ipairs(call('ZRANGE', KEY.WORKERS, digits(now - silence), '+inf', 'BYSCORE')) do
  local queue = call('HGET', KEY.WORKER .. id, 'queue')
  if queue then workers[queue] = (workers[queue] or 0) + 1 end
end

local newest = call('XREVRANGE', KEY.EVENTS, '+', '-', 'COUNT', 1)
local reply = { at_ms, newest[1] and newest[1][1] or '0-0' }
for i, key in ipairs(KEYS) do
  local name, n = ARGV[HEAD + i], #reply
  local due = call('ZCOUNT', key, '-inf', at_ms)
  local running, oldest = look_at_due(key)
  local leased = 0
  for first = now, now + lease, 1000 do leased = leased + count_leased(key, first, 1000) end
  reply[n + 1], reply[n + 2], reply[n + 3] = due - running, running + leased, call('ZCARD', key) - due - leased
  reply[n + 4], reply[n + 5], reply[n + 6] = oldest, call('ZCARD', KEY.DEAD .. name), workers[name] or 0
  reply[n + 7] = call('EXISTS', KEY.PAUSED .. name)
  reply[n + 8] = call('MGET', key .. KEY.HEALTH_CHECK)[1] or ''
end
return reply
