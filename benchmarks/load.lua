-- A closed load by wrk: each connection sends the next request when it has its answer.
-- The digits of the pictures alternate. wrk does not tell which request an answer belongs to, so
-- answers are counted by digit: none may come more often than it was asked for.
-- Argument: the file of lines, each a digit, a space and a body.
local requests, digits, at, threads = {}, {}, 0, {}
wrong, sent, found = 0, {}, {}

function setup(thread) table.insert(threads, thread) end

function init(args)
  for line in io.lines(args[1]) do
    local headers = { ["Content-Type"] = "application/json" }
    table.insert(digits, tonumber(line:sub(1, 1)))
    table.insert(requests, wrk.format("POST", "/predict", headers, line:sub(3)))
  end
  for digit = 0, 9 do sent[digit], found[digit] = 0, 0 end
end

function request()
  at = at % #requests + 1
  sent[digits[at]] = sent[digits[at]] + 1
  return requests[at]
end

function response(status, _, body)
  local digit = tonumber(body:match('"prediction"%s*:%s*(%d)%D'))
  if status ~= 200 or not digit then
    wrong = wrong + 1
  else
    found[digit] = found[digit] + 1
    if found[digit] > sent[digit] then wrong = wrong + 1 end
  end
end

function done(summary, latency, _)
  local failed, e = 0, summary.errors
  for _, thread in ipairs(threads) do failed = failed + thread:get("wrong") end
  failed = failed + e.connect + e.read + e.write + e.timeout
  io.write(string.format('\nRESULT {"requests": %d, "seconds": %f, "failed": %d, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(99) / 1000))
end
