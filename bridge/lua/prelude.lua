-- What scripts share. bridge/scripts.py puts above each script those parts that it uses, and KEY.… of bridge/keys.py in
-- their places. A part ends with an empty line.

local call = redis.call

-- A number as Redis wants it: Lua 5.1 would write 1.7e+12. It takes as long as a short command: keep what it returns.
local function digits(number) return string.format('%.0f', number) end

-- The one clock: milliseconds of the server.
local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Runs `command key argument…` for many arguments, in pieces that fit Lua's stack: what a script costs is its calls.
local PIECE = 200
local function call_for_all(command, key, arguments)
  for i = 1, #arguments, PIECE do
    call(command, key, unpack(arguments, i, math.min(i + PIECE - 1, #arguments)))
  end
end

-- The values of these keys, false for what is not a string.
local function get_all(names)
  local values = {}
  for i = 1, #names, PIECE do
    for j, value in ipairs(call('MGET', unpack(names, i, math.min(i + PIECE - 1, #names)))) do
      values[i + j - 1] = value
    end
  end
  return values
end

-- prefix .. id for many ids.
local function names_of(prefix, ids)
  local names = {}
  for i, id in ipairs(ids) do names[i] = prefix .. id end
  return names
end

-- Sets many strings, given as key, value, key, value and so on.
local function set_all(values)
  for i = 1, #values, PIECE do call('MSET', unpack(values, i, math.min(i + PIECE - 1, #values))) end
end

-- How many of these keys exist.
local function count_all(names)
  local count = 0
  for i = 1, #names, PIECE do
    count = count + call('EXISTS', unpack(names, i, math.min(i + PIECE - 1, #names)))
  end
  return count
end

-- nil unless `key` holds another type than `wanted`; then the error to return before anything is written.
local function wrong_type(key, wanted)
  local found = call('TYPE', key).ok
  if found ~= wanted and found ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ', not a ' .. wanted)
  end
end

-- How many entries the key has, which must be of that type or missing; if it is not, `failure` is the error to return
-- before anything is written. Quicker than TYPE.
local SIZE_OF = { zset = 'ZCARD', list = 'LLEN', hash = 'HLEN', stream = 'XLEN' }
local failure
local function size(key, wanted)
  local entries = redis.pcall(SIZE_OF[wanted], key)
  if type(entries) == 'number' then return entries end
  failure = failure or wrong_type(key, wanted) or entries
  return 0
end

-- The only place an event is born. Worker and trace may be left out; strings throughout: Redis writes numbers slowly.
-- The first event of a script has the stream trimmed, which then exceeds its cap by no more than what the script adds.
-- Trimming must not come first: once a script has written, Redis refuses it nothing for lack of memory.
local is_trimmed = false
local function emit(max_len, kind, job_id, queue, task, attempt, at_ms, data, worker, trace)
  local event_id
  if trace and trace ~= '' then
    event_id = call('XADD', KEY.EVENTS, '*', 'kind', kind, 'job_id', job_id, 'queue', queue, 'task', task,
      'attempt', attempt, 'at_ms', at_ms, 'data', data, 'worker', worker or '', 'trace', trace)
  elseif worker and worker ~= '' then
    event_id = call('XADD', KEY.EVENTS, '*', 'kind', kind, 'job_id', job_id, 'queue', queue, 'task', task,
      'attempt', attempt, 'at_ms', at_ms, 'data', data, 'worker', worker)
  else
    event_id = call('XADD', KEY.EVENTS, '*', 'kind', kind, 'job_id', job_id, 'queue', queue, 'task', task,
      'attempt', attempt, 'at_ms', at_ms, 'data', data)
  end
  if not is_trimmed then
    is_trimmed = true
    call('XTRIM', KEY.EVENTS, 'MAXLEN', '~', max_len)
  end
  return event_id
end

-- Adds to a counter of the metrics. It comes last, and pcall: a key of another type there is in nobody's way.
local function count_total(queue, field, number) redis.pcall('HINCRBY', KEY.TOTALS .. queue, field, number) end

-- The score of a claimed job: the end of its lease, with half a ms that tells it from a due time.
local function lease_score(deadline_ms) return digits(deadline_ms) .. '.5' end
local function is_leased(score) return score ~= math.floor(score) end

-- The traceparent in a body, or in the end of one, where our enqueue writes it last; nil when there is none.
local function trace_of(body) return string.match(body, '^"trace":"([%x-]+)"}$', -66) end

-- Lets one idle worker of the queue look for jobs; it wakes the next one if it leaves any (claim.lua).
-- `tokens` are those that the bell has, if that is known.
local function wake(queue, tokens)
  local bell = KEY.WAKE .. queue
  if (tokens or call('EXISTS', bell)) == 0 then call('RPUSH', bell, '1') end
end

-- Forgets dead letters that are too old, and the oldest of those that are too many.
local function prune_dead(dead_key, now)
  local old = call('ZRANGE', dead_key, '-inf', digits(now - KEY.DEAD_TTL_MS), 'BYSCORE', 'LIMIT', 0, 1000)
  local surplus = call('ZCARD', dead_key) - #old - KEY.DEAD_MAX
  if surplus > 0 then old = call('ZRANGE', dead_key, 0, #old + math.min(surplus, 1000) - 1) end
  for _, id in ipairs(old) do
    call('ZREM', dead_key, id)
    call('DEL', dead_key .. ':' .. id)
  end
end
