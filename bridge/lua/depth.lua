-- Counts the jobs of queues by state, all at one instant; reads only.
--
-- KEYS     queues
-- ARGV     [1] longest lease, ms; [2] how long a silent worker still counts, ms; then the name of each queue
-- RETURNS  now ms; id of the newest event (0-0: there is none); then 8 for each queue:
--          queued, in progress, deferred, due time ms of the oldest queued job (0: none), dead letters, workers,
--          1 if it is paused, what a worker wrote of itself ('': nothing)
-- EVENTS   none
local HEAD = 2
local lease, silence = tonumber(ARGV[1]), tonumber(ARGV[2])
if not (lease and silence and #ARGV == HEAD + #KEYS) then return redis.error_reply('ERR depth: a number or a name is missing') end
local now = now_ms()
local at_ms = digits(now)

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
  local marked, first = marked_ids(key, at_ms)
  local leased = #leased_ids(key, now, lease)
  reply[n + 1], reply[n + 2], reply[n + 3] = due - #marked, #marked + leased, call('ZCARD', key) - due - leased
  reply[n + 4] = first and digits(math.floor(tonumber(call('ZSCORE', key, first)))) or '0'
  reply[n + 5], reply[n + 6] = call('ZCARD', KEY.DEAD .. name), workers[name] or 0
  reply[n + 7] = call('EXISTS', KEY.PAUSED .. name)
  reply[n + 8] = call('MGET', key .. KEY.HEALTH_CHECK)[1] or ''
end
return reply
