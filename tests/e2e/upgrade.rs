//! Upgrade (RFC 9110 §7.8), with WebSocket as its user: what Nginx's usual
//! recipe makes of it, and nothing before the backend has agreed.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{Connection, TlsClient};
use crate::support::origin::{Origin, Peer, ok};
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http, is_listening};
use crate::support::tools::{self, Background};
use crate::support::{eventually, patterned};

const MIB: usize = 1024 * 1024;

/// The recipe that every guide gives.
const RECIPE: &str = "proxy_http_version 1.1;\n\
                      proxy_set_header Upgrade $http_upgrade;\n\
                      proxy_set_header Connection \"upgrade\";";

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\
                        Connection: Upgrade\r\nSec-WebSocket-Accept: yes\r\n\r\n";

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: test.example\r\nConnection: Upgrade\r\n\
                   Upgrade: echo\r\nSec-WebSocket-Key: key\r\n\r\n";

/// A plain listener `@HTTP@` and a mutual-TLS listener `@TLS@` to one backend.
fn start(origin: &Origin, more: &str) -> (Ringwall, TlsClient) {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&configuration(origin, more));
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    (ringwall, client)
}

fn configuration(origin: &Origin, more: &str) -> String {
    let location = format!(
        "location / {{ proxy_pass {}; {RECIPE} {more} }}",
        origin.url()
    );
    http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; server_name {HOST}; {location} }}\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
         {location} }}"
    ))
}

/// Agrees to every request, then sends back whatever comes.
fn echo() -> Origin {
    Origin::script(|peer| {
        peer.head()?;
        peer.send(SWITCH)?;
        echo_until_closed(peer)
    })
}

fn echo_until_closed(peer: &mut Peer) -> std::io::Result<()> {
    loop {
        match peer.some() {
            Ok(bytes) => peer.send(&bytes)?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return peer.finish(),
            Err(error) => return Err(error),
        }
    }
}

fn exactly(client: &mut Connection, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let more = client.some().expect("the tunnel is open");
        assert!(!more.is_empty(), "closed after {} bytes", bytes.len());
        bytes.extend(more);
    }
    assert_eq!(bytes.len(), count);
    bytes
}

/// Both ways in.
fn clients(ringwall: &Ringwall, tls: &TlsClient) -> [Connection; 2] {
    [
        Connection::plain(ringwall.address("HTTP")),
        tls.connect(ringwall.address("TLS"), HOST)
            .expect("a handshake"),
    ]
}

#[test]
fn an_upgrade_passes_and_bytes_flow_both_ways() {
    let origin = echo();
    let (ringwall, tls) = start(&origin, "");
    for mut client in clients(&ringwall, &tls) {
        client.send(ASK);
        let head = client.head().expect("a head");
        assert_eq!(head.status, 101);
        assert_eq!(head.header("connection"), Some("upgrade"));
        assert_eq!(head.header("upgrade"), Some("echo"));
        assert_eq!(head.header("sec-websocket-accept"), Some("yes"));
        assert_eq!(head.header("transfer-encoding"), None);
        assert_eq!(head.header("content-length"), None);
        for size in [1, 5, 4096, 4097, 17_000, 70_000, 300_000, 3] {
            let sent = patterned(size);
            client.send(&sent);
            assert!(exactly(&mut client, size) == sent, "{size}");
        }
        client.finish_sending();
        assert_eq!(client.until_close().expect("an orderly end"), b"");
    }
    let seen = origin.all_received_text();
    assert!(seen.starts_with("GET /chat HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("\r\nUpgrade: echo\r\n"), "{seen}");
    assert!(seen.contains("\r\nConnection: upgrade\r\n"), "{seen}");
    assert!(seen.contains("\r\nSec-WebSocket-Key: key\r\n"), "{seen}");
    let line = ringwall.access_with(&["\"GET /chat HTTP/1.1\" 101 "]);
    let total: usize = [1, 5, 4096, 4097, 17_000, 70_000, 300_000, 3].iter().sum();
    assert!(line.contains(&format!(" 101 {total} ")), "{line}");
    eventually("the backends' connections are closed", || {
        (origin.open_connections() == 0).then_some(())
    });
}

#[test]
fn bytes_that_came_early_are_not_lost() {
    // The backend's first message comes with its 101, the client's with its
    // request.
    let origin = Origin::script(|peer| {
        peer.head()?;
        peer.send(&[SWITCH, b"welcome"].concat())?;
        echo_until_closed(peer)
    });
    let (ringwall, tls) = start(&origin, "");
    for mut client in clients(&ringwall, &tls) {
        client.send([ASK.as_bytes(), b"hasty"].concat());
        assert_eq!(client.head().expect("a head").status, 101);
        assert_eq!(exactly(&mut client, 12), b"welcomehasty");
    }
}

#[test]
fn upgrade_bytes_are_tunnelled_only_after_the_backends_101_to_a_request_that_asked_for_it() {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: test.example\r\n\r\n";
    // A refusal: what follows is the next request, with all that holds for it.
    let origin = Origin::http(|request| ok(request.target()));
    let (ringwall, _) = start(&origin, "location /hidden { return 403; }");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send([ASK, hidden].concat());
    assert_eq!(client.response("GET").text(), "/chat");
    assert_eq!(client.response("GET").status, 403);
    client.send(b"\x81\x05frame\r\n\r\n");
    assert_eq!(client.response("GET").status, 400);
    assert_eq!(origin.requests(), 1);

    // A 101 that was not asked for: by the client, by what the backend was
    // told, or before the request's end.
    let origin = echo();
    let (ringwall, _) = start(
        &origin,
        "proxy_request_buffering off; location /untold { proxy_pass http://@BACKEND@; proxy_set_header Connection upgrade; }"
            .replace("@BACKEND@", &origin.address())
            .as_str(),
    );
    for request in [
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n",
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade:\r\n\r\n",
        "GET /chat HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        "GET /untold HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        "POST /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\nContent-Length: 9\r\n\r\nbody",
    ] {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(request);
        assert_eq!(client.response("GET").status, 502, "{request:?}");
    }
    ringwall.complaint_with(&["upstream sent 101 to a request that asked for no upgrade"]);
    ringwall.complaint_with(&["upstream sent 101 before the end of the request"]);
}

#[test]
fn either_side_may_end_its_half_first() {
    let origin = Origin::script(|peer| {
        let request = peer.head()?;
        peer.send(SWITCH)?;
        if request.target() == "/backend-first" {
            peer.send(b"all said")?;
            peer.end_sending()?;
            peer.drain()
        } else {
            peer.drain()?;
            peer.send(&patterned(300_000))?;
            peer.finish()
        }
    });
    let (ringwall, tls) = start(&origin, "");
    for mut client in clients(&ringwall, &tls) {
        client.send(ASK);
        assert_eq!(client.head().expect("a head").status, 101);
        client.send("last words");
        client.finish_sending();
        assert!(client.until_close().expect("an orderly end") == patterned(300_000));
    }
    for mut client in clients(&ringwall, &tls) {
        client.send(ASK.replace("/chat", "/backend-first"));
        assert_eq!(client.head().expect("a head").status, 101);
        assert_eq!(client.until_close().expect("an orderly end"), b"all said");
        client.send("still here");
        client.finish_sending();
    }
    eventually("the backend has heard both", || {
        let seen = origin.all_received_text();
        let both =
            seen.matches("last words").count() == 2 && seen.matches("still here").count() == 2;
        both.then_some(())
    });
}

#[test]
fn a_tunnel_ends_when_nothing_has_moved_for_the_read_timeout() {
    let origin = Origin::script(|peer| {
        peer.head()?;
        peer.send(SWITCH)?;
        peer.drain()
    });
    let (ringwall, _) = start(&origin, "proxy_read_timeout 1s;");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(ASK);
    assert_eq!(client.head().expect("a head").status, 101);
    // Activity in one direction keeps both.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        client.send("ping");
        std::thread::sleep(Duration::from_millis(200));
    }
    let idle = Instant::now();
    client.remains();
    let waited = idle.elapsed();
    assert!(waited > Duration::from_millis(700), "{waited:?}");
    ringwall.complaint_with(&[
        "upstream timed out (110: Connection timed out) while proxying upgraded connection",
        "[error]",
    ]);
    ringwall.access_with(&["\"GET /chat HTTP/1.1\" 101 0 "]);
}

#[test]
fn who_reads_slowly_holds_the_other_side_back() {
    let origin = Origin::script(|peer| {
        let request = peer.head()?;
        peer.send(SWITCH)?;
        if request.target() == "/flood" {
            let piece = patterned(MIB);
            for _ in 0..64 {
                peer.send(&piece)?;
            }
        }
        // Reads nothing until the proxy hangs up.
        peer.idle()
    });
    let (ringwall, _) = start(&origin, "proxy_send_timeout 2s; send_timeout 2s;");
    let before = ringwall.resident_kib();
    let client = Connection::plain(ringwall.address("HTTP"));
    let mut stream = client.socket().try_clone().expect("a descriptor");
    stream.write_all(ASK.as_bytes()).expect("the proxy reads");
    let piece = vec![b'x'; MIB];
    let mut sent = 0;
    let error = loop {
        match stream.write(&piece) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        assert!(sent < 64 * MIB, "nobody holds the client back");
    };
    assert_ne!(
        error.kind(),
        ErrorKind::WouldBlock,
        "the tunnel never ended"
    );

    let mut flooded = Connection::plain(ringwall.address("HTTP"));
    flooded.send(ASK.replace("/chat", "/flood"));
    assert_eq!(flooded.head().expect("a head").status, 101);
    ringwall.complaint_with(&["client timed out", "while proxying upgraded connection"]);
    let mut rest = Vec::new();
    let _ = flooded.socket().read_to_end(&mut rest);
    assert!(rest.len() < 32 * MIB, "{} bytes", rest.len());
    let after = ringwall.resident_kib();
    assert!(after < before + 8 * 1024, "{before} to {after} KiB");
}

#[test]
fn tunnels_survive_a_reload() {
    let origin = echo();
    let (mut ringwall, tls) = start(&origin, "");
    let mut open = clients(&ringwall, &tls);
    for client in &mut open {
        client.send(ASK);
        assert_eq!(client.head().expect("a head").status, 101);
    }
    let other = Origin::hello();
    ringwall.rewrite(&configuration(&other, ""));
    ringwall.reload();
    eventually("the new configuration is in force", || {
        let mut probe = Connection::plain(ringwall.address("HTTP"));
        (probe.get(HOST, "/").text() == "hello").then_some(())
    });
    for client in &mut open {
        client.send("still there?");
        assert_eq!(exactly(client, 12), b"still there?");
    }
}

#[test]
fn tunnels_outlive_a_graceful_stop_until_its_time_is_up() {
    let origin = echo();
    let (site, pki) = Site::with_pki();
    let configuration = format!(
        "worker_shutdown_timeout 2s;\n{}",
        configuration(&origin, "")
    );
    let mut ringwall = site.start(&configuration);
    let tls = TlsClient::with_identity(&pki.ca, &pki.client);
    let mut open = clients(&ringwall, &tls);
    for client in &mut open {
        client.send(ASK);
        assert_eq!(client.head().expect("a head").status, 101);
    }
    let port = ringwall.address("HTTP").port();
    ringwall.signal(Signal::QUIT);
    let asked = Instant::now();
    eventually("nobody listens any more", || {
        (!is_listening(port)).then_some(())
    });
    for client in &mut open {
        client.send("still there?");
        assert_eq!(exactly(client, 12), b"still there?");
    }
    assert!(ringwall.wait().success());
    assert!(asked.elapsed() > Duration::from_millis(1500));
    for client in &mut open {
        client.remains();
    }
}

#[test]
fn python_websockets_talk_through_it() {
    let (mut site, _pki) = Site::with_pki();
    let server = site.write(
        "server.py",
        r#"
import asyncio, websockets
async def echo(socket, path=None):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", @BACKEND@, max_size=None):
        await asyncio.Future()
asyncio.run(main())
"#,
    );
    let server = server.to_str().expect("UTF-8").to_owned();
    let _backend = Background::start(site.path(), &tools::python("python3"), &[&server]);
    let port = site.port("BACKEND");
    eventually("the backend listens", || is_listening(port).then_some(()));
    let client = site.write(
        "client.py",
        r#"
import asyncio, ssl, websockets
async def talk(uri, **more):
    async with websockets.connect(uri, max_size=None, **more) as socket:
        for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
            message = bytes(i * 7 & 255 for i in range(size))
            await socket.send(message)
            assert await socket.recv() == message, size
        await socket.send("text")
        print(await socket.recv())
        await (await socket.ping())
    print("closed", socket.close_code)
context = ssl.create_default_context(cafile="ca.crt")
context.load_cert_chain("client.crt", "client.key")
asyncio.run(talk("ws://localhost:@HTTP@/"))
asyncio.run(talk("wss://localhost:@TLS@/", ssl=context, server_hostname="test.example"))
"#,
    );
    let client = client.to_str().expect("UTF-8").to_owned();
    let location = format!("location / {{ proxy_pass http://127.0.0.1:{port}; {RECIPE} }}");
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; {location} }}\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} {MUTUAL}\n\
         {location} }}"
    )));
    let said = tools::run(ringwall.site.path(), &tools::python("python3"), &[&client]).expect_ok();
    assert_eq!(said, "text\nclosed 1000\n".repeat(2));
}
