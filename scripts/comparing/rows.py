"""What is compared, and with whom."""

from dataclasses import dataclass

# `wrk` keeps asking as fast as it is answered, `h2load` may keep a rate, and
# `idle` connections ask once and are then left alone.
WRK, H2LOAD, IDLE = "wrk", "h2load", "idle"


@dataclass(frozen=True)
class Row:
    title: str
    connections: int
    path: str = "/small"
    load: str = WRK
    # Others that can do the row's job. The first is what ratios are relative to.
    peers: tuple = ("nginx", "haproxy")
    # The way in: "tls", "plain" (egress and the relays) or "h2".
    way: str = "tls"
    # Each request on a connection of its own.
    closes: bool = False
    resumes: bool = False
    # Streams at once on each connection.
    streams: int = 1
    # Bytes of each request's body.
    sends: int = 0
    # Bytes of each response's body, where they are what the row is about.
    takes: int = 0
    # What the backend counts for each request.
    backend_requests: int = 1
    # The call that a relay is asked to make.
    call: str = ""
    # As a share of the first peer's peak rate; 0 is as fast as it goes.
    rate: float = 0.0


MIB = 1 << 20
# "bare" is a TCP relay without TLS or HTTP: the least that any of them can cost.
WITH_BARE = ("nginx", "haproxy", "bare")

ROWS = {
    "keepalive": Row("keep-alive request, small body, 64 connections", 64, peers=WITH_BARE),
    "keepalive-256": Row("the same, 256 connections", 256),
    "keepalive-1000": Row("the same, 1,000 connections", 1000),
    "latency": Row("the same at half of Nginx's peak rate, 256 connections", 256,
                   load=H2LOAD, rate=0.5),
    "handshake": Row("full mTLS handshake, one request, close", 64, closes=True),
    "resume": Row("resumed mTLS session, one request, close", 64, closes=True, resumes=True),
    "body": Row("1 MiB response, 16 connections", 16, "/1m.bin", takes=MIB,
                peers=WITH_BARE),
    "body-100m": Row("100 MiB response, 4 connections", 4, "/100m.bin", takes=100 * MIB),
    # The backend reads the whole body, then asks itself for the answer.
    "upload": Row("1 MiB request body, 16 connections", 16, "/upload", sends=MIB,
                  backend_requests=2, peers=WITH_BARE),
    "h2": Row("HTTP/2, small body, 64 connections of 10 streams", 64, load=H2LOAD, way="h2",
              streams=10),
    "h2-body": Row("HTTP/2, 1 MiB response, 16 connections of 4 streams", 16, "/1m.bin",
                   load=H2LOAD, way="h2", streams=4, takes=MIB),
    "egress": Row("mTLS to the backend over kept connections, small body", 64, way="plain",
                  peers=("nginx",)),
    "relay": Row("JSON relay, a handshake for each of Node's calls", 64, "/proxy", way="plain",
                 peers=("node",), call="/small"),
    "relay-kept": Row("JSON relay, kept connections", 64, "/proxy", way="plain",
                      peers=("node-kept",), call="/small"),
    "memory": Row("idle mTLS connection", 10000, load=IDLE),
    "h2-memory": Row("idle mTLS connection of HTTP/2", 1000, load=IDLE, way="h2"),
}
