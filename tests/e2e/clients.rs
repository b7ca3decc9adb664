//! Other people's clients, resuming: each proves who it is once and is known
//! again on its next connection, over both versions of TLS.

use crate::support::java;
use crate::support::pki::{OpenSsl, Pki};
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};
use crate::support::tools;

/// A server that says what it made of the handshake, and closes.
fn server() -> Ringwall {
    let site = Site::new();
    Pki::new(&[HOST, "localhost"]).write(site.path());
    site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST} localhost;\n\
         {CERTIFICATES} {MUTUAL} ssl_session_cache shared:A:1m; keepalive_timeout 0;\n\
         return 200 \"$ssl_protocol $ssl_session_reused $ssl_client_verify $ssl_client_s_dn\\n\"; }}"
    )))
}

/// What the server says of a first and of a later connection.
fn said(version: &str, reused: bool) -> String {
    let mark = if reused { 'r' } else { '.' };
    format!("{version} {mark} SUCCESS CN=client.example\n")
}

fn twice(versions: &[&str]) -> String {
    let pair = |version: &&str| said(version, false) + &said(version, true);
    versions.iter().map(pair).collect()
}

#[test]
fn curl_resumes() {
    let ringwall = server();
    let port = ringwall.address("TLS").port();
    for (version, option) in [("TLSv1.3", "--tlsv1.3"), ("TLSv1.2", "--tls-max 1.2")] {
        let output = tools::shell(
            ringwall.site.path(),
            &format!(
                "curl -sS --max-time 30 {option} --cacert ca.crt --cert client.crt --key client.key \
                 --resolve {HOST}:{port}:127.0.0.1 https://{HOST}:{port}/a https://{HOST}:{port}/b"
            ),
        );
        assert_eq!(output.expect_ok(), twice(&[version]));
    }
}

#[test]
fn gnutls_connects_and_resumes() {
    let ringwall = server();
    let port = ringwall.address("TLS").port();
    for version in ["1.3", "1.2"] {
        let output = tools::shell(
            ringwall.site.path(),
            &format!(
                "(printf 'GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'; sleep 1) | \
                 gnutls-cli --x509cafile ca.crt --x509certfile client.crt --x509keyfile client.key \
                 --priority NORMAL:-VERS-ALL:+VERS-TLS{version} --resume --waitresumption \
                 -p {port} localhost"
            ),
        );
        let text = &output.stdout;
        assert!(
            text.contains("The certificate is trusted"),
            "{version}: {output:#?}"
        );
        assert!(
            text.contains("*** This is a resumed session"),
            "{version}: {output:#?}"
        );
        assert!(
            text.contains(&said(&format!("TLSv{version}"), true)),
            "{version}: {output:#?}"
        );
        let output = tools::shell(
            ringwall.site.path(),
            &format!(
                "gnutls-cli --x509cafile ca.crt --priority NORMAL:-VERS-ALL:+VERS-TLS{version} \
                 -p {port} localhost </dev/null"
            ),
        );
        assert!(!output.ok(), "without a certificate: {output:#?}");
    }
}

#[test]
fn python_resumes() {
    let (mut ringwall, script) = (
        server(),
        r#"
import socket, ssl, requests
context = ssl.create_default_context(cafile="ca.crt")
context.load_cert_chain("client.crt", "client.key")
for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
    context.minimum_version = context.maximum_version = version
    session = None
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", @TLS@)) as tcp:
            with context.wrap_socket(tcp, server_hostname="localhost", session=session) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                text = b""
                while piece := tls.recv(4096):
                    text += piece
                session = tls.session
                assert tls.session_reused == (b" r " in text)
                print(text.decode().split("\r\n\r\n")[1], end="")
with requests.Session() as session:
    session.trust_env = False
    session.cert = ("client.crt", "client.key")
    session.verify = "ca.crt"
    for _ in range(2):
        print(session.get("https://localhost:@TLS@/").text, end="")
"#,
    );
    let script = ringwall.site.write("client.py", script);
    let script = script.to_str().expect("UTF-8");
    let text = tools::run(ringwall.site.path(), &tools::python("python3"), &[script]).expect_ok();
    // requests does not keep sessions of TLS itself.
    let requests = said("TLSv1.3", false).repeat(2);
    assert_eq!(text, twice(&["TLSv1.3", "TLSv1.2"]) + &requests);
}

#[test]
fn tickets_response_and_the_end_of_a_connection_leave_in_one_segment() {
    let mut ringwall = server();
    // Finished and the request are sent together, and `tcpi_data_segs_in` counts
    // what comes back. Where the kernel repeats a segment, most other tries count.
    let script = ringwall.site.write(
        "client.py",
        r#"
import socket, ssl, struct
context = ssl.create_default_context(cafile="ca.crt")
context.load_cert_chain("client.crt", "client.key")

def segments(tcp):
    return struct.unpack_from("I", tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 152)[0]

def attempt():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", @TLS@)) as tcp:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                tcp.sendall(outgoing.read())
                incoming.write(tcp.recv(65536))
        tls.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        before = segments(tcp)
        tcp.sendall(outgoing.read())
        while piece := tcp.recv(65536):
            incoming.write(piece)
        received = segments(tcp) - before
    assert b" SUCCESS " in tls.read(65536)
    try:
        assert not tls.read(1)
    except ssl.SSLZeroReturnError:
        pass
    return received

print(sorted(attempt() for _ in range(20))[9])
"#,
    );
    let script = script.to_str().expect("UTF-8");
    let text = tools::run(ringwall.site.path(), &tools::python("python3"), &[script]).expect_ok();
    assert_eq!(text, "1\n");
}

#[test]
fn node_resumes() {
    let mut ringwall = server();
    let script = ringwall.site.write(
        "client.js",
        r#"
const https = require('https'), fs = require('fs');
const identity = {
  ca: fs.readFileSync('ca.crt'), cert: fs.readFileSync('client.crt'), key: fs.readFileSync('client.key'),
};
function call(agent) {
  return new Promise((resolve, reject) => {
    const request = https.request(
      { agent, host: 'localhost', family: 4, port: @TLS@, path: '/' },
      response => {
        let text = '';
        response.on('data', piece => text += piece);
        response.on('end', () => {
          if (request.socket.isSessionReused() !== text.includes(' r ')) reject(new Error(text));
          resolve(text);
        });
      });
    request.on('error', reject);
    request.end();
  });
}
(async () => {
  for (const version of ['TLSv1.3', 'TLSv1.2']) {
    const agent = new https.Agent({ ...identity, minVersion: version, maxVersion: version });
    for (let round = 0; round < 2; round++) process.stdout.write(await call(agent));
    agent.destroy();
  }
})().catch(error => { console.error(error); process.exit(1); });
"#,
    );
    let script = script.to_str().expect("UTF-8");
    let text = tools::run(ringwall.site.path(), "node", &[script]).expect_ok();
    assert_eq!(text, twice(&["TLSv1.3", "TLSv1.2"]));
}

#[test]
fn javas_http_client_resumes_with_a_pkcs12_keystore() {
    let mut ringwall = server();
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
            HttpRequest request = HttpRequest.newBuilder(URI.create("https://localhost:@TLS@/")).build();
            for (int round = 0; round < 2; round++) {
                System.out.print(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
            }
        }
    }
}
"#,
        ),
    );
    let source = source.to_str().expect("UTF-8");
    let text = tools::run(ringwall.site.path(), "java", &[source]).expect_ok();
    assert_eq!(text, twice(&["TLSv1.3", "TLSv1.2"]));
}
