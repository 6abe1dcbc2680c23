-- Stands before every script (bridge/scripts.py adds the table KEY from bridge/keys.py above it).

-- A number as Redis wants it: Lua 5.1 would write 1.7e+12.
local function digits(number) return string.format('%.0f', number) end

-- The one clock: milliseconds of the server.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- nil unless `key` holds another type than `wanted`; then the error to return before anything is written.
local function wrong_type(key, wanted)
  local found = redis.call('TYPE', key).ok
  if found ~= wanted and found ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ', not a ' .. wanted)
  end
end

-- The only place an event is born. event: kind, job_id, queue, task, attempt, at_ms, data; worker and trace may be ''.
local function emit(max_len, event)
  local fields = {
    'kind', event.kind, 'job_id', event.job_id, 'queue', event.queue, 'task', event.task,
    'attempt', event.attempt, 'at_ms', event.at_ms, 'data', event.data,
  }
  if event.worker and event.worker ~= '' then fields[#fields + 1] = 'worker'; fields[#fields + 1] = event.worker end
  if event.trace and event.trace ~= '' then fields[#fields + 1] = 'trace'; fields[#fields + 1] = event.trace end
  return redis.call('XADD', KEY.EVENTS, 'MAXLEN', '~', max_len, '*', unpack(fields))
end
