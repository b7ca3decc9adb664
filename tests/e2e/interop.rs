//! Other people's clients: each makes a mutual-TLS request as its users would.

use crate::support::java;
use crate::support::origin::{Origin, Request, ok};
use crate::support::pki::{OpenSsl, Pki};
use crate::support::ringwall::{HOST, Ringwall, Site, mutual_proxy};
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

/// A mutual-TLS proxy whose certificate also serves `localhost`, for tools
/// that resolve names themselves.
fn proxy() -> (Ringwall, Origin) {
    let origin = Origin::http(|request| ok(&summary(request)));
    let site = Site::new();
    Pki::new(&[HOST, "localhost"]).write(site.path());
    let configuration = mutual_proxy(&origin.url())
        .replace("location / {", "client_max_body_size 20m; location / {")
        .replace(
            "server_name test.example",
            "server_name test.example localhost",
        );
    (site.start(&configuration), origin)
}

fn curl(ringwall: &Ringwall, arguments: &str) -> Outcome {
    let port = ringwall.address("TLS").port();
    tools::shell(
        ringwall.site.path(),
        &format!(
            "curl -sS --max-time 30 --cacert ca.crt --cert client.crt --key client.key \
             --resolve {HOST}:{port}:127.0.0.1 {}",
            arguments.replace("URL", &format!("https://{HOST}:{port}"))
        ),
    )
}

#[test]
fn curl_gets_posts_and_uploads() {
    let (ringwall, _origin) = proxy();
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(ringwall.site.file("body"), &body).expect("writable");
    let sent = format!("{} {}", body.len(), sum(&body));
    for (arguments, expected) in [
        ("URL/", "GET 0 0".to_owned()),
        ("--http1.0 URL/", "GET 0 0".to_owned()),
        ("--tlsv1.2 --tls-max 1.2 URL/", "GET 0 0".to_owned()),
        ("--tlsv1.3 URL/", "GET 0 0".to_owned()),
        ("--http2 URL/", "GET 0 0".to_owned()),
        ("-d hello URL/", format!("POST 5 {}", sum(b"hello"))),
        ("-T body URL/", format!("PUT {sent}")),
        ("-T - URL/ < body", format!("PUT {sent}")),
        (
            "-H 'Expect: 100-continue' --data-binary @body URL/",
            format!("POST {sent}"),
        ),
        (
            "-H 'Transfer-Encoding: chunked' --data-binary @body URL/",
            format!("POST {sent}"),
        ),
        ("--tls-max 1.2 -T body URL/", format!("PUT {sent}")),
    ] {
        assert_eq!(
            curl(&ringwall, arguments).expect_ok(),
            expected,
            "{arguments}"
        );
    }
    let head = curl(&ringwall, "-I URL/").expect_ok();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let outcome = curl(&ringwall, "-v URL/a URL/b");
    assert!(
        outcome.ok() && outcome.stderr.contains("Re-using existing connection"),
        "{outcome:?}"
    );
}

#[test]
fn openssl_s_client_connects_and_resumes() {
    let (ringwall, _origin) = proxy();
    let port = ringwall.address("TLS").port();
    for version in ["-tls1_3", "-tls1_2"] {
        let connect = |more: &str| {
            tools::shell(
                ringwall.site.path(),
                &format!(
                    "(printf 'GET / HTTP/1.1\\r\\nHost: {HOST}\\r\\nConnection: close\\r\\n\\r\\n'; sleep 1) | \
                     openssl s_client -connect 127.0.0.1:{port} -servername {HOST} {version} -ign_eof \
                     -CAfile ca.crt -cert client.crt -key client.key {more}"
                ),
            )
        };
        let outcome = connect("-sess_out session.pem");
        assert!(
            outcome.stdout.contains("Verify return code: 0 (ok)"),
            "{outcome:?}"
        );
        assert!(outcome.stdout.contains("HTTP/1.1 200 OK"), "{outcome:?}");
        assert!(outcome.stdout.contains("\nNew, TLSv1"), "{outcome:?}");
        let outcome = connect("-sess_in session.pem");
        assert!(outcome.stdout.contains("\nReused, TLSv1"), "{outcome:?}");
        assert!(outcome.stdout.contains("HTTP/1.1 200 OK"), "{outcome:?}");
    }
}

#[test]
fn python_requests_and_the_standard_library_connect() {
    let (mut ringwall, _origin) = proxy();
    let script = ringwall.site.write(
        "client.py",
        r#"
import http.client, requests, ssl
port = @TLS@
base = f"https://localhost:{port}"
with requests.Session() as session:
    session.trust_env = False  # REQUESTS_CA_BUNDLE would outrank session.verify
    session.cert = ("client.crt", "client.key")
    session.verify = "ca.crt"
    for _ in range(3):
        print(session.get(base + "/").text)
    print(session.post(base + "/", data=b"hello").text)
    print(session.post(base + "/", data=(piece for piece in [b"hel", b"lo"])).text)
context = ssl.create_default_context(cafile="ca.crt")
context.load_cert_chain("client.crt", "client.key")
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context.minimum_version = context.maximum_version = version
    connection = http.client.HTTPSConnection("localhost", port, context=context)
    for _ in range(2):
        connection.request("PUT", "/", body=b"hello")
        print(connection.getresponse().read().decode())
bare = ssl.create_default_context(cafile="ca.crt")
try:
    connection = http.client.HTTPSConnection("localhost", port, context=bare)
    connection.request("GET", "/")
    connection.getresponse()
    print("served without a certificate")
except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
    print("refused")
"#,
    );
    let script = script.to_str().expect("UTF-8");
    let text = tools::run(ringwall.site.path(), &tools::python("python3"), &[script]).expect_ok();
    let hello = format!("5 {}", sum(b"hello"));
    let expected = format!(
        "GET 0 0\nGET 0 0\nGET 0 0\nPOST {hello}\nPOST {hello}\n{}refused\n",
        format!("PUT {hello}\n").repeat(4)
    );
    assert_eq!(text, expected);
}

#[test]
fn node_connects() {
    let (mut ringwall, _origin) = proxy();
    let script = ringwall.site.write(
        "client.js",
        r#"
const https = require('https'), fs = require('fs');
const agent = new https.Agent({
  keepAlive: true, maxSockets: 1,
  ca: fs.readFileSync('ca.crt'), cert: fs.readFileSync('client.crt'), key: fs.readFileSync('client.key'),
});
function call(method, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(
      { agent, method, host: 'localhost', family: 4, port: @TLS@, path: '/' },
      response => {
        let text = '';
        response.on('data', piece => text += piece);
        response.on('end', () => resolve(text));
      });
    request.on('error', reject);
    if (body) { request.write(body.slice(0, 3)); request.write(body.slice(3)); }
    request.end();
  });
}
(async () => {
  console.log(await call('GET'));
  console.log(await call('POST', 'hello'));
  console.log(await call('GET'));
  agent.destroy();
})().catch(error => { console.error(error); process.exit(1); });
"#,
    );
    let script = script.to_str().expect("UTF-8");
    let text = tools::run(ringwall.site.path(), "node", &[script]).expect_ok();
    assert_eq!(
        text,
        format!("GET 0 0\nPOST 5 {}\nGET 0 0\n", sum(b"hello"))
    );
}

#[test]
fn java_connects_with_a_pkcs12_keystore() {
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
        for (String version : new String[] { "TLSv1.3", "TLSv1.2" }) {
            SSLContext context = Stores.context(version, "client.p12");
            HttpClient client = HttpClient.newBuilder().sslContext(context).build();
            URI uri = URI.create("https://localhost:@TLS@/");
            for (int round = 0; round < 2; round++) {
                System.out.println(client.send(HttpRequest.newBuilder(uri).build(),
                    HttpResponse.BodyHandlers.ofString()).body());
                System.out.println(client.send(
                    HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofString("hello")).build(),
                    HttpResponse.BodyHandlers.ofString()).body());
            }
        }
    }
}
"#,
        ),
    );
    let source = source.to_str().expect("UTF-8");
    let text = tools::run(ringwall.site.path(), "java", &[source]).expect_ok();
    let round = format!("GET 0 0\nPOST 5 {}\n", sum(b"hello"));
    assert_eq!(text, round.repeat(4));
}

#[test]
fn wrk_finds_no_failed_request() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&crate::support::ringwall::plain_proxy(&origin.url()));
    let url = format!("http://{}/", ringwall.address("HTTP"));
    let text = tools::run(
        ringwall.site.path(),
        "wrk",
        &["-t1", "-c16", "-d2s", "--timeout", "10s", &url],
    )
    .expect_ok();
    assert!(text.contains("requests in"), "{text}");
    assert!(
        !text.contains("Socket errors") && !text.contains("Non-2xx"),
        "{text}"
    );
}
