//! What a generator thinks of, frame by frame: whatever a client sends, what it
//! gets is HTTP/2, what it asks for properly is answered, and others stay served.

use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{HOST, Site, http};
use crate::support::tools;

/// Hypothesis says what is sent, in frames of the Python libraries; it begins from
/// the same seed each time and keeps nothing.
const CLIENT: &str = r#"
import socket, struct
import h2.config, h2.connection, h2.events, hpack
from hyperframe.frame import Frame
from hypothesis import HealthCheck, given, settings, strategies as st

BOUNDED = dict(derandomize=True, database=None, deadline=None,
               suppress_health_check=list(HealthCheck))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW, MORE = range(10)


def fields(method, path, more=()):
    return [(":method", method), (":scheme", "http"), (":authority", "localhost"),
            (":path", path), *more]


class Client:
    """By the library, which holds every frame that comes to the protocol."""

    def __init__(self):
        self.wire = socket.create_connection(("127.0.0.1", @HTTP@), 30)
        self.core = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.core.initiate_connection()
        self.bodies, self.open = {}, set()

    def ask(self, more=(), body=b"", cuts=(), padding=None, trailers=()):
        stream = self.core.get_next_available_stream_id()
        self.bodies[stream] = b""
        self.open.add(stream)
        method = "POST" if body or trailers else "GET"
        self.core.send_headers(stream, fields(method, "/proper", more),
                               end_stream=not body and not trailers)
        ends = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
        sent = 0
        while sent < len(body):
            end = next(end for end in ends if end > sent)
            room = self.core.local_flow_control_window(stream) - 256
            if room <= 0:
                self.listen()
                continue
            part = body[sent:min(end, sent + room, sent + 16000)]
            sent += len(part)
            self.core.send_data(stream, part, pad_length=padding,
                                end_stream=sent == len(body) and not trailers)
        if trailers:
            self.core.send_headers(stream, trailers, end_stream=True)
        return stream

    def listen(self):
        self.wire.sendall(self.core.data_to_send())
        data = self.wire.recv(65536)
        assert data, "closed"
        for event in self.core.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                assert dict(event.headers)[b":status"] == b"200", event
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.core.acknowledge_received_data(event.flow_controlled_length,
                                                    event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.open.discard(event.stream_id)
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise AssertionError(event)

    def finish(self):
        while self.open:
            self.listen()
        return self.bodies


neighbour = Client()


def neighbour_is_served():
    stream = neighbour.ask()
    assert neighbour.finish()[stream] == b"0"


name = st.from_regex(r"x-[a-z0-9-]{1,12}", fullmatch=True)
value = st.from_regex(r"([!-~]([ -~]{0,60}[!-~])?)?", fullmatch=True)
pairs = st.lists(st.tuples(name, value), max_size=8)
request = st.fixed_dictionaries({
    "more": pairs, "body": st.binary(max_size=3000) | st.integers(0, 40_000).map(bytes),
    "cuts": st.lists(st.integers(0, 40_000), max_size=4),
    "padding": st.none() | st.integers(0, 255), "trailers": pairs,
})


@settings(max_examples=@PROPER@, **BOUNDED)
@given(st.lists(request, min_size=1, max_size=8))
def proper_requests_are_answered(requests):
    client = Client()
    lengths = {client.ask(**one): str(len(one["body"])).encode() for one in requests}
    assert client.finish() == lengths
    client.wire.close()
    neighbour_is_served()


def frame(kind, flags, stream, payload):
    return (struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
            + struct.pack(">I", stream) + payload)


def block(pairs):
    return hpack.Encoder().encode(pairs, huffman=False)


stream = st.integers(0, 9) | st.sampled_from([1, 3, 5, 7, 101, 2**31 - 1])
flags = st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13, 32, 37, 45]) | st.integers(0, 255)
word = st.sampled_from([0, 1, 100, 65_535, 2**31 - 1, 2**31, 2**32 - 1])
text = st.binary(max_size=20)
pseudo = st.sampled_from([b":method", b":path", b":scheme", b":authority", b":status",
                          b":protocol", b":x", b"te", b"connection", b"content-length",
                          b"transfer-encoding", b"host", b"cookie", b"expect", b"X-Y"])
listed = st.lists(st.tuples(pseudo | text, text), max_size=6)
proper = st.sampled_from(["GET", "POST", "HEAD", "CONNECT", "PUT"]).map(
    lambda method: fields(method, "/odd"))
heads = st.builds(lambda first, rest: block(first + rest), proper | st.just([]), listed)
some_frame = st.one_of(
    st.builds(frame, st.just(HEADERS), flags, stream, heads),
    st.builds(frame, st.just(HEADERS), st.sampled_from([4, 5]),
              st.sampled_from([1, 3, 5, 7, 9]), proper.map(block)),
    st.builds(frame, st.just(MORE), flags, stream, heads),
    st.builds(frame, st.just(DATA), flags, stream, st.binary(max_size=300)),
    st.builds(frame, st.just(RST_STREAM), flags, stream, word.map(struct.Struct(">I").pack)),
    st.builds(frame, st.just(WINDOW), flags, stream, word.map(struct.Struct(">I").pack)),
    st.builds(frame, st.just(SETTINGS), st.sampled_from([0, 1]), st.just(0),
              st.lists(st.tuples(st.integers(0, 9), word), max_size=5).map(
                  lambda said: b"".join(struct.pack(">HI", *one) for one in said))),
    st.builds(frame, st.just(PING), st.sampled_from([0, 1]), st.just(0), st.binary(
        min_size=8, max_size=8)),
    st.builds(frame, st.integers(0, 12) | st.integers(0, 255), flags, stream,
              st.binary(max_size=40)),
)


def read_all(wire):
    """All that comes until the answer to our last PING, or the end."""
    got, question = b"", frame(PING, 1, 0, b"question")
    while question not in got:
        try:
            data = wire.recv(65536)
        except ConnectionResetError:
            break
        if not data:
            break
        got += data
    return got


def hold_to_the_rules(got):
    """Whole frames, in an order that a client may rely on; the last may be cut."""
    tables, seen, ended, last = hpack.Decoder(), {}, set(), False
    first = True
    while len(got) >= 9:
        head, length = Frame.parse_frame_header(memoryview(got[:9]), strict=True)
        if len(got) < 9 + length:
            return
        head.parse_body(memoryview(got[9:9 + length]))
        got = got[9 + length:]
        kind, number, said = type(head).__name__, head.stream_id, set(head.flags)
        assert kind == "SettingsFrame" or not first, kind
        first = False
        assert kind != "PushPromiseFrame"
        if kind in ("HeadersFrame", "DataFrame"):
            assert number % 2 == 1 and number not in ended, (kind, number)
            if kind == "HeadersFrame":
                assert "END_HEADERS" in said
                decoded = dict(tables.decode(head.data))
                if number not in seen or seen[number] < 200:
                    seen[number] = int(decoded[":status"])
                else:
                    assert not any(it.startswith(":") for it in decoded), decoded
            else:
                assert seen.get(number, 0) >= 200, "a body before its head"
            if "END_STREAM" in said:
                ended.add(number)
        elif kind == "RstStreamFrame":
            ended.add(number)


@settings(max_examples=@ODD@, **BOUNDED)
@given(st.lists(some_frame, max_size=12), st.integers(0, 12), st.booleans())
def odd_frames_get_http2_or_a_goodbye(frames, cut, greets):
    wire = socket.create_connection(("127.0.0.1", @HTTP@), 30)
    sent = PREFACE + (frame(SETTINGS, 0, 0, b"") if greets else b"") + b"".join(frames)
    sent += frame(PING, 0, 0, b"question")
    try:
        wire.sendall(sent[:len(sent) - cut])
        if cut:
            # The question is not whole: nothing but the end will come.
            wire.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError, OSError):
        pass
    hold_to_the_rules(read_all(wire))
    wire.close()
    neighbour_is_served()


proper_requests_are_answered()
odd_frames_get_http2_or_a_goodbye()
print("kept")
"#;

#[test]
fn whatever_a_generated_client_sends_it_gets_http2_and_its_neighbour_is_served() {
    let origin = Origin::http(|request| ok(&request.body.len().to_string()));
    let mut ringwall = Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; http2 on; server_name {HOST} localhost;\n\
         keepalive_requests 100000; client_max_body_size 1m;\n\
         location / {{ proxy_pass {}; }} }}",
        origin.url()
    )));
    let script = CLIENT.replace("@PROPER@", "40").replace("@ODD@", "300");
    let script = ringwall.site.write("client.py", &script);
    let script = script.to_str().expect("UTF-8").to_owned();
    let said = tools::run(ringwall.site.path(), &tools::python("python3"), &[&script]);
    assert_eq!(said.expect_ok(), "kept\n");
    assert!(ringwall.is_running());
    let complaints = ringwall.complaints();
    let panicked = complaints.contains("panicked") || complaints.contains("[alert]");
    assert!(!panicked, "{complaints}");
}
