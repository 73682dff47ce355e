-- Closed load by wrk: each connection asks again as soon as it has its answer. All pictures of a
-- run are of one digit, so that every answer can be checked, whichever connection it comes by.
-- Arguments: the file of bodies, one a line; the path; the pattern of a right answer.

local requests = {}
local at = 0
local pattern
local threads = {}

wrong = 0

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local headers = { ["Content-Type"] = "application/json" }
  for body in io.lines(args[1]) do
    table.insert(requests, wrk.format("POST", args[2], headers, body))
  end
  pattern = args[3]
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function response(status, _, body)
  if status ~= 200 or not body:find(pattern) then
    wrong = wrong + 1
  end
end

function done(summary, latency, _)
  local mistakes = 0
  for _, thread in ipairs(threads) do
    mistakes = mistakes + thread:get("wrong")
  end
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "microseconds": %d, "wrong": %d, "connect": %d, "read": %d, '
      .. '"write": %d, "timeout": %d, "p50_us": %d, "p95_us": %d, "p99_us": %d, "max_us": %d}\n',
    summary.requests, summary.duration, mistakes, e.connect, e.read, e.write, e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99), latency.max))
end
