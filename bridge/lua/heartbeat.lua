-- A worker says that it lives, or that it goes. One that lives also takes off those that have been silent for too long.
--
-- ARGV     [1] event stream cap, entries; [2] worker; [3] '1': it lives, '0': it goes (then nothing more is needed);
--          [4] silence after which a worker counts as lost, ms; [5] lost workers to take off, at most;
--          [6] how long what is known of a silent worker is kept, ms; [7] when this one started, ms ('0': now);
--          then what is known of it: host, pid, queue name, max jobs, runner, running, done, failed, retried
-- RETURNS  when it started, ms; '0' of one that goes
-- EVENTS   worker.started when it was not registered; worker.lost of each that is taken off;
--          worker.stopped of one that goes and was registered
local max_len, worker, limit_ms, most, ttl_ms = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local FIELDS = { 'host', 'pid', 'queue', 'max_jobs', 'runner', 'running', 'done', 'failed', 'retried' }
local HEAD, lives = 7, ARGV[3] == '1'
local now = now_ms()
local at_ms, key = digits(now), KEY.WORKER .. worker

if lives then
  if not (limit_ms and most and tonumber(ttl_ms) and tonumber(ARGV[7])) or #ARGV ~= HEAD + #FIELDS then
    return redis.error_reply('ERR heartbeat: an argument is missing or not a number')
  end
  if not (tonumber(ARGV[HEAD + 2]) and tonumber(ARGV[HEAD + 4])) then
    return redis.error_reply('ERR heartbeat: pid or max jobs is not a number')
  end
end
local failure = wrong_type(KEY.WORKERS, 'zset') or wrong_type(key, 'hash') or wrong_type(KEY.EVENTS, 'stream')
if failure then return failure end

-- What is known of a worker may be gone: then its id tells its host and pid. pcall: another type is as good as nothing.
local function tell(kind, id)
  local known = redis.pcall('HMGET', KEY.WORKER .. id, 'host', 'pid', 'queue', 'max_jobs')
  local host, pid = string.match(id, '^(.*):(%d+):')
  local queue = known[3] or ''
  emit(max_len, kind, '', queue, '', 0, at_ms, '{"host":' .. cjson.encode(known[1] or host or '') .. ',"pid":'
    .. (known[2] or pid or '0') .. ',"queue":' .. cjson.encode(queue) .. ',"max_jobs":' .. (known[4] or '0') .. '}', id)
end

local function take_off(kind, id)
  if call('ZREM', KEY.WORKERS, id) == 1 then
    tell(kind, id)
    call('DEL', KEY.WORKER .. id)
  end
end

if not lives then
  take_off('worker.stopped', worker)
  return '0'
end

local latest = tonumber(call('ZSCORE', KEY.WORKERS, worker))
local started_at_ms = ARGV[7] == '0' and at_ms or ARGV[7]
local values = { 'started_at_ms', started_at_ms }
for i, field in ipairs(FIELDS) do values[2 * i + 1], values[2 * i + 2] = field, ARGV[HEAD + i] end
call('HSET', key, unpack(values))
call('PEXPIRE', key, ttl_ms)
call('ZADD', KEY.WORKERS, at_ms, worker)
if not latest then tell('worker.started', worker) end

-- Who was silent itself cannot tell: perhaps nobody could reach Redis. The others have until its next beat.
if latest and now - latest <= limit_ms then
  local silent = call('ZRANGEBYSCORE', KEY.WORKERS, '-inf', '(' .. digits(now - limit_ms), 'LIMIT', 0, most)
  for _, id in ipairs(silent) do take_off('worker.lost', id) end
end
return started_at_ms
