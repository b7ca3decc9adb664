//! Backends and callers of other people's making: Node, Java, Python, and a
//! second ringwall.

use std::fs;
use std::path::Path;

use crate::support::client::{Connection, TlsClient};
use crate::support::eventually;
use crate::support::java;
use crate::support::origin::{Origin, ok};
use crate::support::pki::{Authority, OpenSsl, Pki};
use crate::support::ringwall::{HOST, Ringwall, Site, http, is_listening};
use crate::support::tools::{self, Background};

const MUTUAL: &str = "proxy_ssl_certificate @DIR@/client.crt; \
     proxy_ssl_certificate_key @DIR@/client.key; \
     proxy_ssl_trusted_certificate @DIR@/ca.crt; proxy_ssl_verify on; \
     proxy_ssl_name test.example; proxy_ssl_server_name on;";

fn egress(lines: &str) -> String {
    http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; client_max_body_size 0;\n\
         location / {{ proxy_pass https://127.0.0.1:@UP@; {MUTUAL} {lines} }} }}"
    ))
}

fn started(site: &mut Site, command: &[&str], script: &Path) -> Background {
    let (program, options) = command.split_first().expect("a program");
    let script = script.to_str().expect("UTF-8");
    let running = Background::start(site.path(), program, &[options, &[script]].concat());
    let port = site.port("UP");
    eventually("the backend listens", || is_listening(port).then_some(()));
    running
}

/// An HTTPS server that demands a certificate of the test CA.
const NODE: &str = r#"
const https = require('https'), fs = require('fs');
https.createServer({
  key: fs.readFileSync('server.key'), cert: fs.readFileSync('server.crt'),
  ca: fs.readFileSync('ca.crt'), requestCert: true, rejectUnauthorized: true,
}, (request, response) => {
  const who = request.socket.getPeerCertificate().subject.CN;
  if (request.url === '/slow') return;
  if (request.url === '/drip') {
    // Characters of three bytes, cut anywhere.
    const text = Buffer.from('정산€'.repeat(40));
    let at = 0;
    const drip = setInterval(() => {
      if (at >= text.length) { clearInterval(drip); response.end(); return; }
      response.write(text.subarray(at, at + 7));
      at += 7;
    }, 5);
    return;
  }
  const pieces = [];
  request.on('data', piece => pieces.push(piece));
  request.on('end', () => {
    response.setHeader('X-Reused', String(request.socket.isSessionReused()));
    response.end(`${who} ${request.method} ${request.url} ${Buffer.concat(pieces)}`);
  });
}).listen(@UP@, '127.0.0.1');
"#;

fn node(site: &mut Site) -> Background {
    let script = site.write("server.js", NODE);
    started(site, &["node"], &script)
}

fn client(ringwall: &Ringwall) -> Connection {
    Connection::plain(ringwall.address("HTTP"))
}

#[test]
fn a_node_server_that_demands_a_certificate_is_served_and_its_sessions_resumed() {
    let (mut site, _pki) = Site::with_pki();
    let _node = node(&mut site);
    let ringwall = site.start(&egress(""));
    let mut one = client(&ringwall);
    one.send("POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["3\r\nhel\r\n", "2\r\nlo\r\n", "0\r\n\r\n"] {
        one.send(piece);
    }
    assert_eq!(
        one.response("POST").text(),
        "client.example POST /a?b hello"
    );
    let drip = one.get("a", "/drip");
    assert_eq!(drip.text(), "정산€".repeat(40));
    // Several at once need several connections, of which the later resume.
    let mut many: Vec<Connection> = (0..6).map(|_| client(&ringwall)).collect();
    for each in &mut many {
        each.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let reused = many
        .iter_mut()
        .map(|each| each.response("GET"))
        .filter(|response| response.header("x-reused") == Some("true"))
        .count();
    assert!(reused > 0, "no session was resumed");
}

#[test]
fn a_backend_that_is_slow_to_answer_ends_at_proxy_read_timeout() {
    let (mut site, _pki) = Site::with_pki();
    let _node = node(&mut site);
    let ringwall = site.start(&egress("proxy_read_timeout 1s;"));
    let mut one = client(&ringwall);
    assert_eq!(one.get("a", "/slow").status, 504);
    ringwall.complaint_with(&["upstream timed out", "while reading response header"]);
    assert_eq!(one.get("a", "/").status, 200);
}

#[test]
fn a_java_server_that_demands_a_certificate_is_served() {
    let (mut site, _pki) = Site::with_pki();
    OpenSsl::in_dir(site.path()).store("server");
    let source = site.write(
        "Server.java",
        &java::with_stores(
            r#"
import com.sun.net.httpserver.*;
import java.io.*;
import java.net.InetSocketAddress;
import javax.net.ssl.*;

class Server {
    public static void main(String[] none) throws Exception {
        SSLContext context = Stores.context("TLS", "server.p12");
        HttpsServer server = HttpsServer.create(new InetSocketAddress("127.0.0.1", @UP@), 0);
        server.setHttpsConfigurator(new HttpsConfigurator(context) {
            public void configure(HttpsParameters parameters) {
                SSLParameters wanted = context.getDefaultSSLParameters();
                wanted.setNeedClientAuth(true);
                parameters.setSSLParameters(wanted);
            }
        });
        server.createContext("/", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes();
            String who = ((HttpsExchange) exchange).getSSLSession().getPeerPrincipal().getName();
            byte[] answer = (who + " " + exchange.getRequestMethod() + " " + body.length).getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
    }
}
"#,
        ),
    );
    let _java = started(
        &mut site,
        &["java", "-Djava.net.preferIPv4Stack=true"],
        &source,
    );
    let ringwall = site.start(&egress(""));
    let mut one = client(&ringwall);
    for _ in 0..3 {
        assert_eq!(one.get("a", "/").text(), "CN=client.example GET 0");
        one.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(one.response("PUT").text(), "CN=client.example PUT 5");
    }
}

#[test]
fn callers_of_hand_made_proxies_reach_an_api_by_mutual_tls() {
    let (mut site, _pki) = Site::with_pki();
    let _node = node(&mut site);
    site.write(
        "caller.py",
        "import requests\n\
         session = requests.Session()\n\
         session.trust_env = False\n\
         for _ in range(2):\n\
         \x20   answer = session.post('http://127.0.0.1:@HTTP@/proxy', json={\n\
         \x20       'method': 'POST', 'path': '/v1/pay', 'body': {'name': '정산'},\n\
         \x20       'headers': {'X-Key': 'k'}})\n\
         \x20   print(answer.status_code, answer.text)\n\
         answer = session.post('http://127.0.0.1:@HTTP@/proxy', json={\n\
         \x20   'method': 'GET', 'path': '/', 'hostname': 'evil.example'})\n\
         print(answer.status_code, answer.text)\n",
    );
    site.write(
        "caller.js",
        "(async () => {\n\
         const answer = await fetch('http://127.0.0.1:@HTTP@/proxy', {\n\
         method: 'POST', headers: { 'Content-Type': 'application/json' },\n\
         body: JSON.stringify({ method: 'GET', path: '/drip' }) });\n\
         console.log(answer.status, await answer.text());\n\
         })();\n",
    );
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; location = /proxy {{\n\
         json_relay https://127.0.0.1:@UP@; {MUTUAL} }} }}"
    )));
    let run = |program: &str, script: &str| {
        tools::run(ringwall.site.path(), program, &[script]).expect_ok()
    };
    let said = run(&tools::python("python3"), "caller.py");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with("200 client.example POST /v1/pay {\"name\"") && lines[0] == lines[1],
        "{said}"
    );
    assert_eq!(lines[2], "403 {\"error\":\"Target not allowed\"}");
    assert_eq!(
        run("node", "caller.js"),
        format!("200 {}\n", "정산€".repeat(40))
    );
}

/// As Spring's WebClient calls a hand-made proxy: the JDK's client (which it
/// uses as `JdkClientHttpConnector`), a PKCS#12 key store, a trust store, JSON
/// both ways.
const WEB_CLIENT: &str = r#"
import java.io.*;
import java.net.URI;
import java.net.http.*;
import java.util.concurrent.CompletableFuture;
import java.util.stream.*;
import javax.net.ssl.*;

class Caller {
    static HttpClient client(boolean shows) throws Exception {
        SSLContext context = Stores.context("TLS", shows ? "client.p12" : null);
        // WebClient asks for HTTP/2 and takes HTTP/1.1.
        return HttpClient.newBuilder().sslContext(context).build();
    }

    static HttpRequest call(String json) {
        return HttpRequest.newBuilder(URI.create("https://test.example:@TLS@/proxy"))
            .header("Content-Type", "application/json").header("Accept", "application/json, */*")
            .POST(HttpRequest.BodyPublishers.ofString(json)).build();
    }

    public static void main(String[] none) throws Exception {
        HttpClient client = client(true);
        String pay = "{'method':'POST','path':'/v1/pay?x=1','body':{'name':'정산'},'headers':{'X-Key':'k'}}".replace('\'', '"');
        String drip = "{'method':'GET','path':'/drip'}".replace('\'', '"');
        String evil = "{'method':'GET','path':'/','hostname':'evil.example'}".replace('\'', '"');
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        for (String json : new String[] { pay, pay, drip, evil }) {
            HttpResponse<String> answer = client.send(call(json), HttpResponse.BodyHandlers.ofString());
            out.println(answer.statusCode() + " " + answer.body());
        }
        // As many at once as its event loop has in flight.
        var all = IntStream.range(0, 20)
            .mapToObj(n -> client.sendAsync(call(pay), HttpResponse.BodyHandlers.ofString())).toList();
        out.println(all.stream().map(CompletableFuture::join).filter(a -> a.statusCode() == 200).count());
        try {
            var answer = client(false).send(call(pay), HttpResponse.BodyHandlers.ofString());
            out.println("let in with " + answer.statusCode());
        } catch (IOException refused) {
            out.println("refused");
        }
    }
}
"#;

#[test]
fn a_java_caller_with_a_pkcs12_store_reaches_an_api_through_the_relay() {
    let (mut site, _pki) = Site::with_pki();
    let _node = node(&mut site);
    OpenSsl::in_dir(site.path()).store("client");
    let configuration = http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name test.example;
         ssl_certificate @DIR@/server.crt; ssl_certificate_key @DIR@/server.key;
         ssl_client_certificate @DIR@/ca.crt; ssl_verify_client on;
         location = /proxy {{ json_relay https://127.0.0.1:@UP@; {MUTUAL} }} }}"
    ));
    let ringwall = site.start(&configuration);
    let port = ringwall.address("TLS").port();
    let source = ringwall.site.path().join("Caller.java");
    fs::write(
        &source,
        java::with_stores(WEB_CLIENT).replace("@TLS@", &port.to_string()),
    )
    .expect("writable");
    let hosts = ringwall.site.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 test.example\n").expect("writable");
    let hosts = format!("-Djdk.net.hosts.file={}", hosts.display());
    let said = tools::run(
        ringwall.site.path(),
        "java",
        &[&hosts, "-Dfile.encoding=UTF-8", "Caller.java"],
    )
    .expect_ok();
    let lines: Vec<&str> = said.lines().collect();
    let paid = r#"200 client.example POST /v1/pay?x=1 {"name":"정산"}"#;
    let dripped = format!("200 {}", "정산€".repeat(40));
    let refused = r#"403 {"error":"Target not allowed"}"#;
    assert_eq!(lines, [paid, paid, &dripped, refused, "20", "refused"]);
}

/// A sample of `config/`, its folders and ports moved to a test's own.
fn sample(name: &str, replacements: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name);
    let mut text = fs::read_to_string(path).expect("a sample");
    for (from, to) in [
        ("/run/ringwall/outer.pid", "@DIR@/ringwall.pid"),
        ("/run/ringwall/inner.pid", "@DIR@/ringwall.pid"),
        ("/run/ringwall/ringwall.pid", "@DIR@/ringwall.pid"),
        ("/var/log/ringwall/", "@DIR@/"),
        ("pki/", "@DIR@/"),
        ("worker_processes auto", "worker_processes 1"),
    ]
    .iter()
    .chain(replacements)
    {
        text = text.replace(from, to);
    }
    text
}

#[test]
fn a_chain_of_two_ringwalls_tells_the_backend_of_both_identities() {
    let origin = Origin::http(|request| {
        let field = |name: &str| request.header(name).unwrap_or("-").to_owned();
        ok(&format!(
            "{} {}",
            field("X-SSL-Client-S-DN"),
            field("X-First-Hop")
        ))
    });
    let (clients, mesh) = (Authority::new("Clients"), Authority::new("Mesh"));
    let write = |site: &Site| {
        mesh.server(&["inner.example.com"])
            .write(site.path(), "inner");
        mesh.client("outer.example.com").write(site.path(), "outer");
        fs::write(site.file("mesh-ca.crt"), mesh.pem()).expect("writable");
        fs::write(site.file("clients-ca.crt"), clients.pem()).expect("writable");
        clients
            .server(&["gateway.example.com"])
            .write(site.path(), "server");
    };
    let (inner, outer) = (Site::new(), Site::new());
    write(&inner);
    write(&outer);
    let inner = inner.start(&sample(
        "chain-inner.conf",
        &[
            ("listen 9443 ssl", "listen 127.0.0.1:@TLS@ ssl"),
            ("http://localhost:8080", &origin.url()),
        ],
    ));
    let next = inner.address("TLS").to_string();
    let outer = outer.start(&sample(
        "chain-outer.conf",
        &[
            ("listen 443 ssl", "listen 127.0.0.1:@TLS@ ssl"),
            ("localhost:9443", &next),
        ],
    ));
    let alice = clients.client("alice");
    let mut client = TlsClient::with_identity(&clients, &alice)
        .connect(outer.address("TLS"), "gateway.example.com")
        .expect("let in");
    client.send(
        "GET / HTTP/1.1\r\nHost: gateway.example.com\r\nX-SSL-Client-S-DN: CN=mallory\r\n\
         X-First-Hop: CN=mallory\r\n\r\n",
    );
    assert_eq!(
        client.response("GET").text(),
        "CN=alice CN=outer.example.com"
    );
    // Nobody but the first hop reaches the second, not even with its CA's word.
    let other = mesh.client("other.example.com");
    let mut direct = TlsClient::with_identity(&mesh, &other)
        .connect(inner.address("TLS"), "inner.example.com")
        .expect("a connection");
    assert_eq!(direct.get("inner.example.com", "/").status, 403);
}

/// An API at `@UP@` that demands a certificate: these are its names, and its CA is in
/// this file.
fn api(names: &[&str], ca: &str) -> (Site, Background) {
    let mut site = Site::new();
    let pki = Pki::new(names);
    pki.write(site.path());
    fs::write(site.file(ca), pki.ca.pem()).expect("writable");
    let node = node(&mut site);
    (site, node)
}

#[test]
fn the_egress_sample_serves() {
    let (site, _node) = api(&["payments.example.com", HOST], "payments-ca.crt");
    let ringwall = site.start(&sample(
        "egress.conf",
        &[
            ("listen 127.0.0.1:8080", "listen 127.0.0.1:@HTTP@"),
            ("localhost:8443", "127.0.0.1:@UP@"),
        ],
    ));
    let mut one = client(&ringwall);
    assert_eq!(
        one.get("a", "/payments/x?y").text(),
        "client.example GET /x?y "
    );
    assert!(
        one.get("a", "/healthz")
            .text()
            .contains("\"service\":\"egress\"")
    );
}

#[test]
fn the_json_relay_sample_serves() {
    let (site, _node) = api(&["localhost"], "api-ca.crt");
    let ringwall = site.start(&sample(
        "json-relay.conf",
        &[
            ("listen 127.0.0.1:3000", "listen 127.0.0.1:@HTTP@"),
            ("https://api.example.com", "https://localhost:@UP@"),
            ("localhost:9443", "localhost:@OTHER@"),
        ],
    ));
    let mut page = client(&ringwall);
    let mut call = |origin: &str, text: &str| {
        page.send(format!(
            "POST /proxy HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        ));
        page.response("POST")
    };
    let own = "http://localhost:5173";
    let pay = r#"{"method":"POST","path":"/v1/pay","body":{"n":1}}"#;
    let paid = call(own, pay);
    assert_eq!(paid.text(), r#"client.example POST /v1/pay {"n":1}"#);
    assert_eq!(paid.header("Access-Control-Allow-Origin"), Some(own));
    let other = r#"{"method":"GET","path":"/","hostname":"other.example.com"}"#;
    assert_eq!(call(own, other).text(), r#"{"error":"Target not allowed"}"#);
    let refused = call("https://evil.example", pay);
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("Access-Control-Allow-Origin"), None);
    let health = client(&ringwall).get("a", "/");
    assert!(health.text().contains("\"status\":\"ok\""));
}
