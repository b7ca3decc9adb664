"""Runs of rows: what is started, what is counted, what makes a run worthless."""

import contextlib
import http.client
import os
import re
import shutil
import time

from . import clients, configs
from .load import WRK_REPORT, Load
from .processes import (Failed, check_affinity, command, cpu_seconds, free_ports, resident_bytes,
                        started, tail)
from .rows import IDLE, MIB, ROWS

# The load starts this long before the window of measurement, with so much more
# for each connection, whose handshake is not to fall into it, and goes on this
# long after it.
LEAD_IN, HANDSHAKE, LEAD_OUT = 1.0, 0.004, 0.5
# Between the last idle connection and the reading of memory.
SETTLE_SECONDS = 5


class Bench:
    """What all runs share: the PKI, the configurations, the shim, the backend."""

    def __init__(self, tmp, args, here):
        self.tmp, self.args, self.here = tmp, args, here
        self.pki, self.run_dir = tmp / "pki", tmp / "run"
        names = ("tls_port", "plain_port", "h2_port", "backend_port", "secure_port")
        self.ports = dict(zip(names, free_ports(len(names))))
        self.shim = tmp / "preload.so"
        # First thing negotiated in each row; all others must be equal to it.
        self.negotiated = {}
        # The first peer's requests a second, where a row keeps a share of them.
        self.peaks = {}

    def prepare(self):
        self.pki.mkdir()
        make_pki(self.pki)
        for name in ("PROXY", "RELAY", "HAPROXY", "BACKEND"):
            self.conf(name).write_text(getattr(configs, name).format(
                run=self.run_dir, pki=self.pki, tmp=self.tmp, **self.ports
            ))
        (self.tmp / "report.lua").write_text(WRK_REPORT)
        (self.tmp / "www").mkdir()
        (self.tmp / "www/1m.bin").write_bytes(os.urandom(MIB))
        if any(ROWS[row].takes > MIB for row in self.args.rows):
            (self.tmp / "www/100m.bin").write_bytes(os.urandom(100 * MIB))
        if "bare" in self.args.peers:
            command(["cc", "-O2", str(self.here / "bare.c"), "-o", str(self.tmp / "bare")],
                    "cannot build bare.c")
        command(
            ["cc", "-O2", "-shared", "-fPIC", str(self.here / "preload.c"),
             "-o", str(self.shim), "-ldl"],
            "cannot build preload.c (OpenSSL's headers: apt-get install libssl-dev)",
        )

    def conf(self, name):
        return self.tmp / f"{name.lower()}.conf"

    @contextlib.contextmanager
    def backend(self):
        argv = [self.args.nginx, "-p", str(self.tmp), "-c", str(self.conf("BACKEND"))]
        output = self.tmp / "backend-output.log"
        with started(argv, output, self.ports["backend_port"], self.args.load_core):
            yield

    def run(self, name, which):
        """One run of one row against a freshly started proxy."""
        row = ROWS[name]
        rate = row.rate * self.peak(row) if row.rate else None
        return self.attempt(name, row, which, rate)

    def peak(self, row):
        """What the row's first peer does as fast as it goes."""
        peer = row.peers[0]
        if peer not in self.peaks:
            name = "keepalive-256"
            self.peaks[peer] = self.attempt(name, ROWS[name], peer, None)["requests_per_second"]
        return self.peaks[peer]

    def attempt(self, name, row, which, rate):
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.run_dir.mkdir()
        port = self.ports[f"{row.way}_port"]
        try:
            with started(self.argv(row, which), self.run_dir / "output.log", port,
                         self.args.proxy_core) as proxy:
                if not row.call:
                    self.check_identity()
                if row.load == IDLE:
                    result = self.measure_memory(row, proxy, port)
                else:
                    result = self.measure_load(name, row, proxy, port, rate)
                check_affinity(proxy.pid, self.args.proxy_core)
            self.check_log(which, result)
            return result
        except Failed as failure:
            self.save_logs(which)
            raise Failed(f"{name}, {which}: {failure}\n{tail(self.run_dir / 'error.log')}") from None

    def argv(self, row, which):
        if which.startswith("node"):
            return ["node", str(self.here / "relay.js"), str(self.ports["plain_port"]),
                    str(self.ports["secure_port"]), str(self.pki)] + ["keep"] * (which == "node-kept")
        if which == "bare":
            ports = (str(self.ports[port]) for port in ("tls_port", "secure_port"))
            return [str(self.tmp / "bare"), *ports]
        binary = getattr(self.args, which)
        if which == "haproxy":
            return [binary, "-db", "-f", str(self.conf("HAPROXY"))]
        return [binary, "-p", str(self.run_dir), "-c", str(self.conf("RELAY" if row.call else "PROXY"))]

    def measure_load(self, name, row, proxy, port, rate):
        seconds = self.args.seconds
        lead_in = LEAD_IN + HANDSHAKE * row.connections
        load = Load(row, port, self, lead_in + seconds + LEAD_OUT, rate)
        try:
            time.sleep(lead_in)
            first = self.sample(proxy)
            time.sleep(seconds)
            last = self.sample(proxy)
            time.sleep(LEAD_OUT)
        finally:
            counted, tls = load.end()
        self.check_load(name, row, counted, tls)

        # The sample itself is one request to the backend.
        requests = (last["requests"] - first["requests"] - 1) / row.backend_requests
        if requests <= 0:
            raise Failed("the backend saw no request")
        seconds = last["time"] - first["time"]
        user, system = last["user"] - first["user"], last["system"] - first["system"]
        latency = tls if row.closes else counted
        return {
            "requests_per_second": requests / seconds,
            "cpu_us": (user + system) * 1e6 / requests,
            "user_us": user * 1e6 / requests,
            "system_us": system * 1e6 / requests,
            "core_used": (user + system) / seconds,
            "p50_us": latency["p50_us"],
            "p99_us": latency["p99_us"],
            "answered": counted["requests"],
            "handshakes": tls["handshakes"],
            "errors": 0,
        }

    def sample(self, proxy):
        user, system = cpu_seconds(proxy.pid)
        return {"time": time.monotonic(), "user": user, "system": system,
                "requests": self.backend_requests()}

    def backend_requests(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["backend_port"], timeout=10)
        try:
            connection.request("GET", "/requests")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        # "server accepts handled requests\n 12 12 3456 \n"
        return int(re.search(r"requests\s+\d+\s+\d+\s+(\d+)", text).group(1))

    def check_load(self, name, row, counted, tls):
        errors = {kind: count for kind, count in counted["errors"].items() if count}
        if errors:
            raise Failed(f"the load counted errors: {errors} in {counted['requests']} requests")
        if row.way == "plain":
            return
        handshakes, resumed = tls["handshakes"], tls["resumed"]
        if tls["failed"]:
            raise Failed(f"{tls['failed']} handshakes failed")
        if resumed and not row.resumes:
            raise Failed(f"{resumed} of {handshakes} sessions were resumed")
        if row.resumes and handshakes - resumed > 2 * row.connections:
            raise Failed(f"only {resumed} of {handshakes} sessions were resumed")
        if row.closes and handshakes < counted["requests"]:
            raise Failed(f"{counted['requests']} requests in {handshakes} handshakes")
        if not row.closes and handshakes > 2 * row.connections:
            raise Failed(f"connections were not kept: {handshakes} handshakes")
        agreed = {key: tls[key] for key in ("version", "cipher", "group")}
        if self.negotiated.setdefault(name, agreed) != agreed:
            raise Failed(f"negotiated {agreed}, the other proxy {self.negotiated[name]}")

    def check_identity(self):
        """All must do the work that is compared: demand and verify a certificate."""
        port = self.ports["tls_port"]
        status = clients.ask(clients.client_context(self.pki, "client"), port, "/small")
        if status != 200:
            raise Failed(f"a client with a valid certificate got {status}")
        for certificate in (None, "stranger"):
            status = clients.ask(clients.client_context(self.pki, certificate), port, "/small")
            if status == 200:
                raise Failed(f"a client with {certificate or 'no'} certificate was served")

    def check_log(self, which, result):
        if which == "bare" or which.startswith("node"):
            return
        name = "output.log" if which == "haproxy" else "access.log"
        with open(self.run_dir / name, "rb") as log:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
        if lines < result["answered"]:
            raise Failed(f"{result['answered']} requests but {lines} lines in the access log")

    def measure_memory(self, row, proxy, port):
        kind, protocol = (clients.Http2, "h2") if row.way == "h2" else (clients.Http1, None)
        context = clients.client_context(self.pki, "client", protocol)
        before = resident_bytes(proxy.pid)
        connections = []
        try:
            for _ in range(row.connections):
                connections.append(kind(context, port))
                if connections[-1].exchange(row.path) != 200:
                    raise Failed("an answer was not 200")
            time.sleep(SETTLE_SECONDS)
            after = resident_bytes(proxy.pid)
            # They must still be there: memory of closed connections is no figure.
            for connection in (connections[0], connections[-1]):
                if connection.exchange(row.path) != 200:
                    raise Failed("an idle connection was lost")
        except OSError as error:
            raise Failed(f"connection {len(connections)} of {row.connections}: {error}") from None
        finally:
            for connection in connections:
                connection.close()
        return {
            "resident_per_connection": (after - before) / row.connections,
            "resident_before": before,
            "resident_after": after,
            "answered": row.connections + 2,
            "errors": 0,
        }

    def save_logs(self, which):
        if self.args.keep_logs:
            shutil.copytree(
                self.run_dir, os.path.join(self.args.keep_logs, which), dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("access.log", "*.pid"),
            )


def make_pki(directory):
    extensions = directory / "server.ext"
    extensions.write_text(f"subjectAltName=DNS:{configs.HOST}\nextendedKeyUsage=serverAuth\n")
    client = directory / "client.ext"
    client.write_text("extendedKeyUsage=clientAuth\n")

    def openssl(*argv):
        command(["openssl", *map(str, argv)], "openssl failed")

    def authority(name):
        key = directory / f"{name}.key"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        openssl("req", "-new", "-x509", "-key", key, "-out", directory / f"{name}.crt",
                "-days", 2, "-subj", f"/CN=Comparison {name}")

    def leaf(name, ca, extension_file):
        key, request = directory / f"{name}.key", directory / f"{name}.csr"
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        openssl("req", "-new", "-key", key, "-out", request, "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", request, "-CA", directory / f"{ca}.crt",
                "-CAkey", directory / f"{ca}.key", "-CAcreateserial", "-days", 2,
                "-out", directory / f"{name}.crt", "-extfile", extension_file)

    authority("ca")
    authority("other-ca")
    leaf("server", "ca", extensions)
    leaf("client", "ca", client)
    leaf("stranger", "other-ca", client)
    # As HAProxy wants it.
    (directory / "server.pem").write_text(
        (directory / "server.crt").read_text() + (directory / "server.key").read_text()
    )
