"""The load generators. Each run of one gives the same things: how much was
answered, what failed, and how long the answers took."""

import json
import os
import re
import signal
import subprocess

from .configs import CIPHERSUITES, HOST
from .processes import Failed
from .rows import H2LOAD

WRK_REPORT = """\
local call, bytes = os.getenv("WRK_CALL"), os.getenv("WRK_BYTES")
if call then
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = '{"method":"GET","path":"' .. call .. '"}'
elseif bytes then
  wrk.method = "POST"
  wrk.body = string.rep("x", tonumber(bytes))
end

done = function(summary, latency, requests)
  local e = summary.errors
  local file = io.open(os.getenv("LOAD_REPORT"), "w")
  file:write(string.format(
    '{"requests":%d,"p50_us":%d,"p99_us":%d,"errors":'
    .. '{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}',
    summary.requests, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
  file:close()
end
"""


class Load:
    """A generator at work on one row. `rate` is the requests a second it keeps."""

    def __init__(self, row, port, bench, duration, rate=None):
        self.row = row
        self.report = bench.run_dir / "load.json"
        self.log = bench.run_dir / "h2load.log"
        self.tls_report = bench.run_dir / "tls.json"
        self.is_plain = row.way == "plain"
        arguments = h2load_arguments if row.load == H2LOAD else wrk_arguments
        argv = arguments(self, port, bench, duration, rate)
        environment = {
            **os.environ,
            **({} if self.is_plain else {"LD_PRELOAD": str(bench.shim)}),
            "CLIENT_CERT": str(bench.pki / "client.crt"),
            "CLIENT_KEY": str(bench.pki / "client.key"),
            "TLS_GROUPS": bench.args.groups,
            "TLS_CIPHERSUITES": CIPHERSUITES,
            **({} if row.resumes else {"TLS_NO_RESUMPTION": "1"}),
            "TLS_REPORT": str(self.tls_report),
            "LOAD_REPORT": str(self.report),
            **({"WRK_CALL": row.call} if row.call else {}),
            **({"WRK_BYTES": str(row.sends)} if row.sends else {}),
        }
        self.process = subprocess.Popen(
            argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self):
        """Stops wrk, waits for h2load, which ends by itself: what they counted,
        and what the preloaded library did of handshakes."""
        if self.row.load != H2LOAD:
            # Which wrk answers with its report.
            self.process.send_signal(signal.SIGINT)
        try:
            stdout, stderr = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            stdout, stderr = self.process.communicate()
        if self.process.returncode != 0 or self.is_plain == self.tls_report.exists():
            raise Failed(f"{self.process.args[0]} ended with status {self.process.returncode}: "
                         f"{stderr.strip()}")
        if self.row.load == H2LOAD:
            counted = h2load_report(stdout, self.log)
        elif self.report.exists():
            counted = json.loads(self.report.read_text())
        else:
            raise Failed(f"wrk wrote no report: {stderr.strip()}")
        tls = {"handshakes": 0} if self.is_plain else json.loads(self.tls_report.read_text())
        return counted, tls


def wrk_arguments(load, port, bench, duration, _):
    row = load.row
    argv = [
        "wrk", "--threads", "1", "--connections", str(row.connections),
        # wrk takes whole seconds; it is stopped before.
        "--duration", f"{int(duration) + 60}s", "--timeout", "10s",
        "--script", str(bench.tmp / "report.lua"), "--header", f"Host: {HOST}",
    ]
    if row.closes:
        argv += ["--header", "Connection: close"]
    scheme = "http" if load.is_plain else "https"
    return [*argv, f"{scheme}://127.0.0.1:{port}{row.path}"]


def h2load_arguments(load, port, _, duration, rate):
    row = load.row
    argv = [
        "h2load", "--clients", str(row.connections),
        "--max-concurrent-streams", str(row.streams),
        "--duration", f"{duration * 1000:.0f}ms",
        "--connect-to", f"127.0.0.1:{port}", f"--tls13-ciphers={CIPHERSUITES}",
        f"--log-file={load.log}",
    ]
    if row.way != "h2":
        argv.append("--h1")
    if rate:
        argv.append(f"--rps={rate / row.connections:.2f}")
    return [*argv, f"https://{HOST}{row.path}"]


def h2load_report(stdout, log):
    counts = re.search(r"requests: .*?(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, "
                       r"(\d+) timeout", stdout)
    if not counts:
        raise Failed(f"h2load said: {stdout.strip()}")
    done, _, failed, errored, timeout = map(int, counts.groups())
    # Start, status, and how long it took; microseconds.
    with open(log) as lines:
        took = sorted(int(line.split("\t")[2]) for line in lines)
    if not took:
        raise Failed("h2load logged no request")
    return {
        "requests": done,
        "errors": {"failed": failed, "errored": errored, "timeout": timeout},
        "p50_us": took[len(took) // 2],
        "p99_us": took[len(took) - 1 - len(took) // 100],
    }
