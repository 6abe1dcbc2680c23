-- Extends leases together.
--
-- KEYS     [1] queue
-- ARGV     [1] lease, ms; then 2 for each job: id, token
-- RETURNS  positions of the leases that are lost, from 0: another worker has the job, or nobody
-- EVENTS   none
local lease = tonumber(ARGV[1])
if not lease then return redis.error_reply('ERR renew: the lease is not a number') end
failure = wrong_type(KEYS[1], 'zset')
if failure then return failure end

local score, lost = lease_score(now_ms() + lease), {}
for i = 2, #ARGV - 1, 2 do
  local id = ARGV[i]
  if call('GET', KEY.IN_PROGRESS .. id) == ARGV[i + 1] then
    call('PEXPIRE', KEY.IN_PROGRESS .. id, ARGV[1])
    call('ZADD', KEYS[1], 'XX', score, id)
  else
    lost[#lost + 1] = i / 2 - 1
  end
end
return lost
