-- A closed load by wrk: each connection sends the next request when it has its answer.
-- All pictures of one load show the same digit, so that every answer can be checked.
-- Arguments: the file of bodies, one per line, and the digit.
local requests, at, threads, pattern = {}, 0, {}, nil
wrong = 0

function setup(thread) table.insert(threads, thread) end

function init(args)
  for body in io.lines(args[1]) do
    local headers = { ["Content-Type"] = "application/json" }
    table.insert(requests, wrk.format("POST", "/predict", headers, body))
  end
  pattern = '"prediction"%s*:%s*' .. args[2] .. "%D"
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function response(status, _, body)
  if status ~= 200 or not body:find(pattern) then wrong = wrong + 1 end
end

function done(summary, latency, _)
  local failed, e = 0, summary.errors
  for _, thread in ipairs(threads) do failed = failed + thread:get("wrong") end
  failed = failed + e.connect + e.read + e.write + e.timeout
  io.write(string.format('\nRESULT {"requests": %d, "seconds": %f, "failed": %d, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(99) / 1000))
end
