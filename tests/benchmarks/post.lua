-- For wrk: posts one job of the task noop again and again; with the argument `keyed`, each with an idempotency key of
-- its own. Prints what came of it as JSON, at the end.
wrk.method = "POST"
wrk.body = '{"task_name":"noop","queue_type":"bench","kwargs":{"user_id":7}}'
wrk.headers["Content-Type"] = "application/json"

local number, is_keyed = 0, false

function init(arguments)
  is_keyed = arguments[1] == "keyed"
  number = os.time() * 1e6
end

function request()
  if is_keyed then
    number = number + 1
    wrk.headers["Idempotency-Key"] = string.format('"order-%.0f"', number)
  end
  return wrk.format()
end

function done(summary, latency, requests)
  local errors = summary.errors
  local all = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('\n{"per_s":%.1f,"p50_ms":%.3f,"p99_ms":%.3f,"errors":%d}',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000, all))
end
