-- For wrk: prints what was measured as one line of JSON; times are microseconds.
--   wrk ... -s load.lua URL -- HOST PORT PORT...
-- has each new connection go to the next of these ports.
local addresses, request_text, count = {}, nil, 0

function init(args)
    if #args > 2 then
        for i = 2, #args do
            addresses[i - 1] = wrk.lookup(args[1], args[i])[1]
        end
        request_text = wrk.format()
        request = function()
            count = count + 1
            wrk.thread.addr = addresses[count % #addresses + 1]
            return request_text
        end
    end
end

function done(summary, latency, requests)
    local e = summary.errors
    local errors = e.connect + e.read + e.write + e.timeout + e.status
    io.write(string.format('{"requests": %d, "duration": %d, "p50": %d, "p99": %d, "errors": %d}\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors))
end
