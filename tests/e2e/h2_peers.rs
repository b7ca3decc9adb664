//! Other people's clients of HTTP/2: each as its users would have it; and other
//! people's HPACK, against ours without a proxy around it.

use ringwall::http::h2::hpack::{self, Decoder, Encoder};

use crate::support::java;
use crate::support::origin::{Origin, Request, ok};
use crate::support::pki::{OpenSsl, Pki};
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};
use crate::support::tools::{self, Outcome};

/// What the backend answers: method, length of the body, and a sum over it.
fn summary(request: &Request) -> String {
    let method = request.line.split(' ').next().unwrap_or_default();
    format!("{method} {} {}", request.body.len(), sum(&request.body))
}

fn sum(body: &[u8]) -> u32 {
    body.iter().fold(0, |sum: u32, byte| {
        sum.wrapping_mul(31).wrapping_add((*byte).into())
    })
}

/// A port with mutual TLS and a plain one, both for both versions.
fn proxy() -> (Ringwall, Origin) {
    let origin = Origin::http(|request| ok(&summary(request)));
    let site = Site::new();
    Pki::new(&[HOST, "localhost"]).write(site.path());
    let server = |listen: &str| {
        format!(
            "server {{ listen 127.0.0.1:{listen}; server_name {HOST} localhost; http2 on;\n\
             add_header X-Version $server_protocol; client_max_body_size 20m;\n\
             keepalive_requests 100000; location / {{ proxy_pass {}; }}",
            origin.url()
        )
    };
    let secure = server("@TLS@ ssl");
    let plain = server("@HTTP@");
    let text = http(&format!("{secure} {CERTIFICATES} {MUTUAL} }}\n{plain} }}"));
    (site.start(&text), origin)
}

fn curl(ringwall: &Ringwall, arguments: &str) -> Outcome {
    let port = ringwall.address("TLS").port();
    let plain = ringwall.address("HTTP");
    let arguments = arguments
        .replace("PLAIN", &format!("http://{plain}"))
        .replace("URL", &format!("https://{HOST}:{port}"));
    tools::shell(
        ringwall.site.path(),
        &format!(
            "curl -sS --max-time 30 --cacert ca.crt --cert client.crt --key client.key \
             --resolve {HOST}:{port}:127.0.0.1 -w ' %{{http_version}}' {arguments}"
        ),
    )
}

#[test]
fn curl_gets_posts_and_uploads_over_http2() {
    let (ringwall, _origin) = proxy();
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(ringwall.site.file("body"), &body).expect("writable");
    let sent = format!("{} {}", body.len(), sum(&body));
    for (arguments, expected) in [
        ("--http2 URL/", "GET 0 0 2".to_owned()),
        ("--http1.1 URL/", "GET 0 0 1.1".to_owned()),
        ("--http2-prior-knowledge PLAIN/", "GET 0 0 2".to_owned()),
        ("--http1.1 PLAIN/", "GET 0 0 1.1".to_owned()),
        // It asks for an upgrade to h2c, which RFC 9113 §3.1 no longer has.
        ("--http2 PLAIN/", "GET 0 0 1.1".to_owned()),
        (
            "--http2 --tls-max 1.2 -d hello URL/",
            format!("POST 5 {} 2", sum(b"hello")),
        ),
        ("--http2 -T body URL/", format!("PUT {sent} 2")),
        ("--http2 -T - URL/ < body", format!("PUT {sent} 2")),
        (
            "--http2-prior-knowledge -H 'Expect: 100-continue' --data-binary @body PLAIN/",
            format!("POST {sent} 2"),
        ),
    ] {
        let said = curl(&ringwall, arguments).expect_ok();
        assert_eq!(said, expected, "{arguments}");
    }
    let head = curl(&ringwall, "--http2 -I URL/").expect_ok();
    assert!(head.starts_with("HTTP/2 200"), "{head}");
    assert!(head.contains("x-version: HTTP/2.0"), "{head}");
}

#[test]
fn nghttp_asks_for_several_things_at_a_time() {
    let (ringwall, _origin) = proxy();
    let plain = ringwall.address("HTTP");
    let urls: Vec<String> = (0..20).map(|n| format!("http://{plain}/{n}")).collect();
    let said = tools::shell(
        ringwall.site.path(),
        &format!("nghttp -ns {}", urls.join(" ")),
    )
    .expect_ok();
    let answered = said.lines().filter(|line| line.contains(" 200 ")).count();
    assert_eq!(answered, 20, "{said}");
}

#[test]
fn h2load_finds_no_failed_request_at_1_10_and_100_streams() {
    let (ringwall, _origin) = proxy();
    let plain = ringwall.address("HTTP");
    for streams in [1, 10, 100] {
        let said = tools::shell(
            ringwall.site.path(),
            &format!("h2load -n 2000 -c 4 -m {streams} http://{plain}/"),
        )
        .expect_ok();
        assert!(
            said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
            "{streams}: {said}"
        );
        assert!(said.contains("status codes: 2000 2xx"), "{said}");
    }
}

#[test]
fn python_httpx_connects() {
    let (mut ringwall, _origin) = proxy();
    let script = ringwall.site.write(
        "client.py",
        r#"
import httpx, ssl
context = ssl.create_default_context(cafile="ca.crt")
context.load_cert_chain("client.crt", "client.key")
with httpx.Client(http1=False, http2=True, verify=context) as client:
    for _ in range(2):
        answer = client.get("https://localhost:@TLS@/")
        print(answer.http_version, answer.text)
        answer = client.post("https://localhost:@TLS@/", content=b"hello")
        print(answer.http_version, answer.text)
    answer = client.post("https://localhost:@TLS@/", content=(b"x" * 50000 for _ in range(20)))
    print(answer.text.split()[1])
"#,
    );
    let script = script.to_str().expect("UTF-8").to_owned();
    let said = tools::run(ringwall.site.path(), &tools::python("python3"), &[&script]);
    let round = format!("HTTP/2 GET 0 0\nHTTP/2 POST 5 {}\n", sum(b"hello"));
    assert_eq!(said.expect_ok(), format!("{}1000000\n", round.repeat(2)));
}

#[test]
fn python_h2_sends_what_it_likes_and_finds_the_rules_kept() {
    let (mut ringwall, _origin) = proxy();
    // The library checks every frame that it is sent against the protocol.
    let script = ringwall.site.write(
        "client.py",
        r#"
import random, socket
import h2.config, h2.connection, h2.events
random.seed(7)
for round in range(20):
    wire = socket.create_connection(("127.0.0.1", @HTTP@), 30)
    c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    c.initiate_connection()
    want = {}
    for _ in range(random.randint(1, 40)):
        stream = c.get_next_available_stream_id()
        body = random.randbytes(random.choice([0, 1, 100, 1000]))
        fields = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"),
                  (":path", "/")] + [(f"x-{n}", "v" * random.randint(0, 90))
                  for n in range(random.randint(0, 9))]
        c.send_headers(stream, fields, end_stream=not body)
        cut = random.randint(0, len(body))
        for piece, last in ((body[:cut], False), (body[cut:], True)):
            if body:
                c.send_data(stream, piece, end_stream=last,
                            pad_length=random.choice([None, 0, 9]))
        want[stream] = len(body)
        if random.random() < 0.1:
            c.ping(random.randbytes(8))
        if random.random() < 0.3:
            wire.sendall(c.data_to_send())
    got = {stream: b"" for stream in want}
    open_streams = set(want)
    while open_streams:
        wire.sendall(c.data_to_send())
        data = wire.recv(65536)
        assert data, "closed"
        for event in c.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                got[event.stream_id] += event.data
                c.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                open_streams.discard(event.stream_id)
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise SystemExit(event)
    for stream, length in want.items():
        assert got[stream].decode().split()[1] == str(length), (stream, length, got[stream])
    wire.close()
print("kept")
"#,
    );
    let script = script.to_str().expect("UTF-8").to_owned();
    let said = tools::run(ringwall.site.path(), &tools::python("python3"), &[&script]);
    assert_eq!(said.expect_ok(), "kept\n");
}

/// Blocks that the library writes, of random fields, some of which come again:
/// each a line of the block, then one of the name and value of each field.
const WRITES_BLOCKS: &str = r#"
import random
import hpack
random.seed(7541)
encoder = hpack.Encoder()
names = [b":authority", b":path", b"date", b"x-custom", b"user-agent", b"cookie"]
known = []
for block in range(200):
    fields = []
    for _ in range(random.randint(0, 12)):
        if known and random.random() < 0.6:
            fields.append(random.choice(known))
            continue
        value = random.randbytes(random.randint(0, 80))
        if random.random() < 0.5:
            value = bytes(33 + byte % 94 for byte in value)
        field = (random.choice(names), value, random.random() < 0.1)
        known.append(field)
        fields.append(field)
    if random.random() < 0.1:
        encoder.header_table_size = random.choice([0, 100, 1000, 4096])
    fields = [(hpack.NeverIndexedHeaderTuple if secret else hpack.HeaderTuple)(name, value)
              for name, value, secret in fields]
    print(encoder.encode(fields, huffman=random.random() < 0.7).hex())
    print(*[f"{name.hex()}:{value.hex()}" for name, value in fields])
"#;

/// Reads blocks and writes their fields, as above.
const READS_BLOCKS: &str = r#"
import hpack, sys
decoder = hpack.Decoder()
for block in open("blocks"):
    fields = decoder.decode(bytes.fromhex(block), raw=True)
    print(*[f"{name.hex()}:{value.hex()}" for name, value in fields])
"#;

#[test]
fn python_hpack_writes_and_reads_fields_as_we_do() {
    let mut site = Site::new();
    let written = python(&mut site, "writes.py", WRITES_BLOCKS);
    let lines: Vec<&str> = written.split('\n').collect();
    let (mut decoder, mut encoder) = (Decoder::new(4096), Encoder::new());
    let (mut blocks, mut expected) = (String::new(), String::new());
    for (number, pair) in lines.chunks_exact(2).enumerate() {
        // The peer may change its mind, too.
        if number % 50 == 49 {
            encoder.set_peer_max(4096 - number * 20);
        }
        let (mut fields, mut block) = (Vec::new(), Vec::new());
        encoder.begin(&mut block);
        let outcome = decoder.decode(&unhex(pair[0]), usize::MAX, |name, value, _| {
            fields.push(format!("{}:{}", hex(name), hex(value)));
            encoder.field(name, value, &mut block);
        });
        assert_eq!(outcome, Ok(hpack::Outcome::Whole), "block {number}");
        assert_eq!(fields.join(" "), pair[1], "block {number}");
        blocks += &format!("{}\n", hex(&block));
        expected += &format!("{}\n", pair[1]);
    }
    assert_eq!(expected.lines().count(), 200);
    site.write("blocks", &blocks);
    assert_eq!(python(&mut site, "reads.py", READS_BLOCKS), expected);
}

fn python(site: &mut Site, name: &str, script: &str) -> String {
    let script = site.write(name, script);
    let script = script.to_str().expect("UTF-8").to_owned();
    tools::run(site.path(), &tools::python("python3"), &[&script]).expect_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn node_connects_over_http2() {
    let (mut ringwall, _origin) = proxy();
    let script = ringwall.site.write(
        "client.js",
        r#"
const http2 = require('http2'), fs = require('fs');
const session = http2.connect('https://localhost:@TLS@', {
  ca: fs.readFileSync('ca.crt'), cert: fs.readFileSync('client.crt'), key: fs.readFileSync('client.key'),
  lookup: (name, options, found) => options.all ? found(null, [{ address: '127.0.0.1', family: 4 }]) : found(null, '127.0.0.1', 4),
});
function call(method, body) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': method, ':path': '/' });
    let text = '';
    stream.setEncoding('utf8');
    stream.on('data', piece => text += piece);
    stream.on('end', () => resolve(text));
    stream.on('error', reject);
    stream.end(body);
  });
}
(async () => {
  console.log((await Promise.all([call('GET'), call('POST', 'hello'), call('GET')])).join('\n'));
  session.close();
})().catch(error => { console.error(error); process.exit(1); });
"#,
    );
    let script = script.to_str().expect("UTF-8").to_owned();
    let said = tools::run(ringwall.site.path(), "node", &[&script]).expect_ok();
    assert_eq!(
        said,
        format!("GET 0 0\nPOST 5 {}\nGET 0 0\n", sum(b"hello"))
    );
}

#[test]
fn java_connects_over_http2() {
    let (mut ringwall, _origin) = proxy();
    OpenSsl::in_dir(ringwall.site.path()).store("client");
    let source = ringwall.site.write(
        "Client.java",
        &java::with_stores(
            r#"
import java.io.*;
import java.net.URI;
import java.net.http.*;
import javax.net.ssl.*;

class Client {
    public static void main(String[] none) throws Exception {
        SSLContext context = Stores.context("TLS", "client.p12");
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).sslContext(context).build();
        URI uri = URI.create("https://localhost:@TLS@/");
        for (int round = 0; round < 2; round++) {
            HttpResponse<String> answer = client.send(
                HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofString("hello")).build(),
                HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.version() + " " + answer.body());
        }
    }
}
"#,
        ),
    );
    let source = source.to_str().expect("UTF-8").to_owned();
    let said = tools::run(ringwall.site.path(), "java", &[&source]).expect_ok();
    assert_eq!(said, format!("HTTP_2 POST 5 {}\n", sum(b"hello")).repeat(2));
}
