//! A page in headless Chromium, behind mutual TLS: what it loads, hears and
//! says over both versions of HTTP, and what becomes of it when the browser
//! thinks that one host's connection does for another.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::browser::Browser;
use crate::support::origin::{Origin, Peer, Request, ok};
use crate::support::pki::Pki;
use crate::support::ringwall::{CERTIFICATES, MUTUAL, Ringwall, Site, http};

/// Both hosts are of one site: a page of the one may use credentials at the other.
const SITE: &str = "browser.test";
const OPEN: &str = "open.browser.test";
const STRICT: &str = "strict.browser.test";
/// For a browser that starts while other tests have the cores.
const LIMIT: Duration = Duration::from_secs(90);

/// What each page begins with: `run(steps)` reports what each step comes to, in
/// lines.
const RUN: &str = r#"<!doctype html><title>test</title><link rel="icon" href="data:,"><script>
async function run(...steps) {
  const lines = [];
  for (const step of steps) lines.push(await step().catch(error => `failed: ${error}`));
  await fetch('/report', { method: 'POST', body: lines.join('\n') });
}
async function text(url) {
  const answer = await fetch(url, { credentials: 'include' });
  return `${answer.status} ${await answer.text()}`;
}
"#;

/// Serves a page, and says of each request how its client came to the proxy.
struct Backend {
    origin: Origin,
    reports: Receiver<String>,
}

impl Backend {
    fn start(page: String) -> Self {
        let (report, reports) = channel();
        let (heard, hears) = channel();
        let (report, heard, hears) = (Mutex::new(report), Mutex::new(heard), Mutex::new(hears));
        let origin = Origin::script(move |peer| {
            loop {
                let request = peer.request()?;
                match request.target() {
                    "/" => peer.send(&html(&page))?,
                    "/who" => peer.send(&ok(&who(&request)))?,
                    "/events" => return events(peer, &who(&request), &hears),
                    "/heard" => tell(&heard, (), peer)?,
                    "/socket" => return socket(peer, &request),
                    "/report" => tell(&report, text(request.body), peer)?,
                    other => panic!("{other}"),
                }
            }
        });
        Self { origin, reports }
    }

    /// What the page reports, line by line.
    fn report(&self) -> Vec<String> {
        let report = self.reports.recv_timeout(LIMIT);
        let report = report.expect("the page comes to its end");
        report.lines().map(str::to_owned).collect()
    }
}

fn html(page: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    )
    .into_bytes()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

fn who(request: &Request) -> String {
    let field = |name| request.header(name).unwrap_or("nothing");
    format!("{} {}", field("x-version"), field("x-client"))
}

fn tell<T>(to: &Mutex<Sender<T>>, what: T, peer: &mut Peer) -> io::Result<()> {
    // Nobody listens only once the test is over.
    let _ = to.lock().expect("not poisoned").send(what);
    peer.send(&ok(""))
}

/// Two events, the second when the page has told of the first: whoever keeps an
/// event back keeps it for ever.
fn events(peer: &mut Peer, who: &str, heard: &Mutex<Receiver<()>>) -> io::Result<()> {
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
    peer.send(format!("data: {who}\n\n").as_bytes())?;
    let heard = heard.lock().expect("not poisoned").recv_timeout(LIMIT);
    heard.map_err(io::Error::other)?;
    peer.send(b"data: again\n\n")?;
    peer.finish()
}

/// A WebSocket (RFC 6455) that says who its client is, and then what that says.
fn socket(peer: &mut Peer, request: &Request) -> io::Result<()> {
    const TEXT: u8 = 0x81;
    const CLOSE: u8 = 0x88;
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let key = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    let accept = STANDARD.encode(sum);
    peer.send(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let send = |peer: &mut Peer, kind: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("short");
        peer.send(&[&[kind, length], payload].concat())
    };
    send(peer, TEXT, who(request).as_bytes())?;
    loop {
        // Of a client's, the payload is masked, and here it is short.
        let head = peer.take(2)?;
        let mask = peer.take(4)?;
        let mut payload = peer.take(usize::from(head[1] & 0x7f))?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        send(peer, head[0], &payload)?;
        if head[0] == CLOSE {
            return peer.finish();
        }
    }
}

/// A proxy with these servers, each of which passes all to the backend and shows
/// one and the same certificate.
fn proxy(backend: &Backend, servers: &[(&str, &str)]) -> Ringwall {
    let site = Site::new();
    Pki::new(&[OPEN, STRICT]).write(site.path());
    let server = |(listen, more): &(&str, &str)| {
        let url = backend.origin.url();
        format!(
            "server {{ listen 127.0.0.1:{listen} ssl; {more} location / {{ proxy_pass {url}; }} }}\n"
        )
    };
    let servers: String = servers.iter().map(server).collect();
    site.start(&http(&format!(
        "log_format x '$server_name $connection $ssl_client_verify \"$request\" $status';\n\
         access_log @DIR@/access.log x; {CERTIFICATES}\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;\n\
         proxy_set_header X-Version $server_protocol;\n\
         proxy_set_header X-Client '$ssl_client_verify $ssl_client_s_dn';\n{servers}"
    )))
}

fn open(ringwall: &Ringwall, host: &str, path: &str) -> Browser {
    let port = ringwall.address("TLS").port();
    let url = format!("https://{host}:{port}{path}");
    Browser::open(ringwall.site.path(), SITE, &url)
}

#[test]
fn a_page_hears_events_and_talks_over_sockets_of_both_versions() {
    // No WebSocket makes a browser choose a certificate; it takes the one that
    // was chosen for the same host and port.
    let backend = Backend::start(format!(
        "{RUN}
const old = `${{location.hostname}}:${{location.hash.slice(1)}}`;
const events = () => new Promise((resolve, reject) => {{
  const source = new EventSource('/events'), heard = [];
  source.onmessage = event => {{
    heard.push(event.data);
    if (heard.length == 1) return fetch('/heard');
    source.close();
    resolve(heard.join(', '));
  }};
  source.onerror = () => reject('the events ended');
}});
const talk = url => new Promise((resolve, reject) => {{
  const socket = new WebSocket(url), heard = [];
  socket.onopen = () => socket.send('hello');
  socket.onmessage = message => {{
    heard.push(message.data);
    if (heard.length == 2) socket.close(1000);
  }};
  socket.onclose = event => resolve([...heard, event.code].join(', '));
}});
run(() => text('/who'), events, () => talk(`wss://${{location.host}}/socket`),
    () => fetch(`https://${{old}}/who`, {{ mode: 'no-cors', credentials: 'include' }})
        .then(answer => answer.type),
    () => talk(`wss://${{old}}/socket`));
</script>"
    ));
    let one = format!("server_name {STRICT}; {MUTUAL}");
    let both = [
        ("@TLS@", &*format!("{one} http2 on;")),
        ("@OLD@", &*format!("{one} http2 off;")),
    ];
    let ringwall = proxy(&backend, &both);
    let old = ringwall.address("OLD").port();
    let _browser = open(&ringwall, STRICT, &format!("/#{old}"));
    let client = "SUCCESS CN=client.example";
    assert_eq!(
        backend.report(),
        [
            &format!("200 HTTP/2.0 {client}"),
            &format!("HTTP/2.0 {client}, again"),
            &format!("HTTP/2.0 {client}, hello, 1000"),
            "opaque",
            &format!("HTTP/1.1 {client}, hello, 1000"),
        ]
    );
}

/// RFC 9110 §15.5.20. The name is in the certificate and the address is the same,
/// so the browser asks over the connection that it has, which has met no policy.
#[test]
fn a_browser_that_coalesces_gets_421_and_then_shows_its_certificate() {
    let backend = Backend::start(format!(
        "{RUN}
const who = () => text(`https://{STRICT}:${{location.port}}/who`);
run(() => text('/who'), who, who);
</script>"
    ));
    let both = [
        ("@TLS@", &*format!("server_name {OPEN}; http2 on;")),
        (
            "@TLS@",
            &*format!(
                "server_name {STRICT}; http2 on; {MUTUAL}\n\
                 add_header Access-Control-Allow-Origin $http_origin always;\n\
                 add_header Access-Control-Allow-Credentials true always;"
            ),
        ),
    ];
    let ringwall = proxy(&backend, &both);
    let _browser = open(&ringwall, OPEN, "/");
    let known = "200 HTTP/2.0 SUCCESS CN=client.example";
    assert_eq!(backend.report(), ["200 HTTP/2.0 NONE", known, known]);
    ringwall.access_with(&[OPEN, "NONE \"POST /report HTTP/2.0\" 200"]);
    let log = ringwall.access_log();
    let connections = |parts: [&str; 2]| -> Vec<String> {
        let lines = log
            .lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)));
        let number = |line: &str| line.split(' ').nth(1).expect("a number").to_owned();
        lines.map(number).collect()
    };
    let refused = connections([STRICT, "NONE \"GET /who HTTP/2.0\" 421"]);
    assert_eq!(
        refused,
        connections([OPEN, "NONE \"GET /who HTTP/2.0\" 200"]),
        "{log}"
    );
    let served = connections([STRICT, "SUCCESS \"GET /who HTTP/2.0\" 200"]);
    assert_eq!(served.len(), 2, "{log}");
    assert!(!served.contains(&refused[0]), "{log}");
}
