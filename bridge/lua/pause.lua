-- Pauses a queue, or resumes it: workers of ours start no job of a paused one.
--
-- ARGV     [1] event stream cap, entries; [2] queue name; [3] 1: pause, 0: resume; [4] who asks, a JSON object with by, or {}
-- RETURNS  1 when this changed it
-- EVENTS   queue.paused, queue.resumed, when this changed it
local max_len, queue, pauses, note = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4]
failure = wrong_type(KEY.EVENTS, 'stream') or wrong_type(KEY.WAKE .. queue, 'list')
if failure then return failure end

local key, at_ms = KEY.PAUSED .. queue, digits(now_ms())
if pauses == (call('EXISTS', key) == 1) then return 0 end
if pauses then
  call('SET', key, at_ms)
else
  call('DEL', key)
  wake(queue)
end
emit(max_len, pauses and 'queue.paused' or 'queue.resumed', '', queue, '', 0, at_ms, note)
return 1
