//! Whom a request is from, when it comes through a proxy: by the header in
//! front of the connection and by fields, from those alone who are trusted.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::client::{Connection, TlsClient, tcp};
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http};

/// What a server thinks of its client.
const SEEN: &str = "return 200 \"$remote_addr|$remote_port|$realip_remote_addr|$proxy_protocol_addr|\
                    $proxy_protocol_port|$proxy_protocol_server_addr|$proxy_protocol_server_port|\
                    $proxy_add_x_forwarded_for\";";

fn start(content: &str) -> Ringwall {
    Site::new().start(&http(content))
}

/// The answer to a request behind these bytes; `None` if there is none.
fn ask(address: SocketAddr, front: &[u8], target: &str, fields: &str) -> Option<String> {
    let mut client = Connection::plain(address);
    client.try_send(front).ok()?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    client.try_send(request).ok()?;
    let response = client.try_response("GET").ok()?;
    // The port of the client's own socket is its own.
    let port = client.socket().local_addr().ok()?.port();
    Some(response.text().replace(&port.to_string(), "PORT"))
}

fn v1(source: &str, port: u16) -> Vec<u8> {
    format!("PROXY TCP4 {source} 198.51.100.7 {port} 443\r\n").into_bytes()
}

fn v2(source: [u8; 4], port: u16, tlvs: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend((12 + tlvs.len() as u16).to_be_bytes());
    header.extend(source);
    header.extend([198, 51, 100, 7]);
    header.extend(port.to_be_bytes());
    header.extend(443u16.to_be_bytes());
    header.extend(tlvs);
    header
}

#[test]
fn nginx_with_the_same_configuration_sees_the_same_client_in_the_fields() {
    let content = format!(
        "server {{ listen 127.0.0.1:@HTTP@;
         set_real_ip_from 127.0.0.0/8; set_real_ip_from 10.0.0.0/8; set_real_ip_from 2001:db8::/32;
         location / {{ proxy_pass http://127.0.0.1:@SEEN@; proxy_set_header X-Seen \"$remote_addr|$remote_port|$realip_remote_addr|$proxy_add_x_forwarded_for\"; proxy_set_header Connection close; }}
         location /xff {{ real_ip_header X-Forwarded-For; {PASS} }}
         location /xffr {{ real_ip_header X-Forwarded-For; real_ip_recursive on; {PASS} }}
         location /cf {{ real_ip_header CF-Connecting-IP; {PASS} }}
         location /cfr {{ real_ip_header CF-Connecting-IP; real_ip_recursive on; {PASS} }}
         location /other {{ set_real_ip_from 192.0.2.1; real_ip_header X-Forwarded-For; {PASS} }}
         }}
         server {{ listen 127.0.0.1:@SEEN@; {SAY} }}",
        PASS = "proxy_pass http://127.0.0.1:@SEEN@; proxy_set_header X-Seen \"$remote_addr|$remote_port|$realip_remote_addr|$proxy_add_x_forwarded_for\"; proxy_set_header Connection close;",
        SAY = "return 200 $http_x_seen;",
    );
    let ringwall = start(&content);
    let mut site = Site::new();
    let nginx = Nginx::start(&mut site, &content.replace("@HTTP@", "@NGINX@"));
    let fields = [
        "",
        "X-Real-IP: 192.0.2.9\r\n",
        "X-Real-IP: 192.0.2.9, 192.0.2.8\r\n",
        "X-Real-IP: nobody\r\n",
        "X-Real-IP: 192.0.2.9:4711\r\n",
        "X-Real-IP: 2001:db8::9\r\n",
        "X-Real-IP: [2001:db8::9]:4711\r\n",
        "X-Real-IP: [2001:db8::9]\r\n",
        "CF-Connecting-IP: 192.0.2.9\r\nCF-Connecting-IP: 192.0.2.8\r\n",
        "CF-Connecting-IP: 192.0.2.9, 10.0.0.1\r\n",
        "X-Forwarded-For: 192.0.2.9\r\n",
        "X-Forwarded-For: 192.0.2.9, 192.0.2.8\r\n",
        "X-Forwarded-For: 192.0.2.9, 10.0.0.2, 10.0.0.1\r\n",
        "X-Forwarded-For: 10.0.0.3, 10.0.0.2, 10.0.0.1\r\n",
        "X-Forwarded-For: nobody, 10.0.0.1\r\n",
        "X-Forwarded-For: 192.0.2.9, nobody\r\n",
        "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 10.0.0.1\r\n",
        "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 192.0.2.8\r\n",
        "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: nobody\r\n",
        "X-Forwarded-For: nobody\r\nX-Forwarded-For: 10.0.0.1\r\n",
        "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 10.0.0.2\r\nX-Forwarded-For: 10.0.0.4, 10.0.0.1\r\n",
        "X-Forwarded-For: 192.0.2.9,10.0.0.1,,\r\n",
        "X-Forwarded-For: ,10.0.0.1\r\n",
        "X-Forwarded-For: 2001:db8::7, 10.0.0.1\r\n",
    ];
    for target in ["/", "/xff", "/xffr", "/cf", "/cfr", "/other"] {
        for fields in fields {
            let seen = |address| ask(address, b"", target, fields);
            assert_eq!(
                seen(ringwall.address("HTTP")),
                seen(nginx.address()),
                "{target} {fields}"
            );
        }
    }
}

#[test]
fn the_header_in_front_of_a_connection_names_the_client_as_with_nginx() {
    let content = format!(
        "server {{ listen 127.0.0.1:@HTTP@ proxy_protocol;
         location / {{ {SEEN} }} }}
         server {{ listen 127.0.0.1:@REAL@ proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;
         location / {{ {SEEN} }} }}"
    );
    let ringwall = start(&content);
    let mut site = Site::new();
    let nginx = Nginx::start(
        &mut site,
        &content
            .replace("@HTTP@", "@NGINX@")
            .replace("@REAL@", "@NGINXREAL@"),
    );
    let nginx_real = crate::support::local(site.port("NGINXREAL"));
    let headers = [
        v1("192.0.2.9", 4711),
        b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2([192, 0, 2, 9], 4711, b""),
        v2([192, 0, 2, 9], 4711, b"\x01\0\x08http/1.1\x02\0\x01a"),
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
        // Whoever does not say whom the connection is for is not served.
        Vec::new(),
        b"PROXY TCP4 192.0.2.9\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c0123456789ab".to_vec(),
    ];
    for header in &headers {
        for [ours, theirs] in [
            [ringwall.address("HTTP"), nginx.address()],
            [ringwall.address("REAL"), nginx_real],
        ] {
            let seen = |address| ask(address, header, "/", "");
            assert_eq!(seen(ours), seen(theirs), "{}", header.escape_ascii());
        }
    }
    let seen = ask(ringwall.address("REAL"), &v1("192.0.2.9", 4711), "/", "");
    assert_eq!(
        seen.as_deref(),
        Some("192.0.2.9|4711|127.0.0.1|192.0.2.9|4711|198.51.100.7|443|192.0.2.9")
    );
    ringwall.complaint_with(&[
        "[error]",
        "broken header: \"GET / HTTP/1.1\"",
        "while reading PROXY protocol, client: 127.0.0.1",
    ]);
    // The log, too, speaks of the client that was named.
    ringwall.access_with(&["192.0.2.9 - - ["]);
}

#[test]
fn the_header_comes_before_tls_in_whatever_pieces() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl proxy_protocol; server_name {HOST}; {CERTIFICATES} {MUTUAL}
         set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;
         location / {{ return 200 \"$remote_addr $proxy_protocol_tlv_alpn $proxy_protocol_tlv_ssl_cn $proxy_protocol_tlv_0xe4 $ssl_client_verify\"; }} }}"
    )));
    let tls = [7, 0, 0, 0, 0]
        .iter()
        .chain(b"\x22\0\x03ann")
        .copied()
        .collect::<Vec<_>>();
    let tlvs = [
        &b"\x01\0\x02h2\xe4\0\x01x\x20\0"[..],
        &[tls.len() as u8],
        &tls,
    ]
    .concat();
    let header = v2([192, 0, 2, 9], 4711, &tlvs);
    let client = TlsClient::with_identity(&pki.ca, &pki.client);
    for pieces in [1, 2, 7, header.len()] {
        let mut stream = tcp(ringwall.address("TLS")).expect("it accepts");
        for piece in header.chunks(header.len().div_ceil(pieces)) {
            stream.write_all(piece).expect("it reads");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut connection = client.connect_over(stream, HOST).expect("a handshake");
        assert_eq!(
            connection.get(HOST, "/").text(),
            "192.0.2.9 h2 ann x SUCCESS"
        );
        assert_eq!(
            connection.get(HOST, "/").text(),
            "192.0.2.9 h2 ann x SUCCESS"
        );
    }
    // Without a header there is no handshake.
    assert!(client.get(ringwall.address("TLS"), HOST, "/").is_err());
}

#[test]
fn a_header_and_a_whole_client_hello_may_come_in_one_packet() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "client_header_timeout 2s; server {{ listen 127.0.0.1:@TLS@ ssl proxy_protocol; server_name {HOST}; {CERTIFICATES} return 200 x; }}"
    )));
    let hello = TlsClient::new(&pki.ca).client_hello(HOST);
    let mut client = Connection::plain(ringwall.address("TLS"));
    client.send([v1("192.0.2.9", 4711), hello].concat());
    // A handshake record of the server's comes back.
    assert_eq!(client.some().expect("a ServerHello").first(), Some(&22));
}

#[test]
fn a_connection_that_brings_no_header_in_time_is_closed() {
    let ringwall = start(
        "client_header_timeout 1s; server { listen 127.0.0.1:@HTTP@ proxy_protocol; return 200 x; }",
    );
    let begin = Instant::now();
    let mut silent = Connection::plain(ringwall.address("HTTP"));
    let mut half = Connection::plain(ringwall.address("HTTP"));
    half.send("PROXY TCP4 192.0");
    silent.expect_close("no header");
    half.expect_close("half a header");
    assert!(begin.elapsed() >= Duration::from_millis(900));
    ringwall.complaint_with(&["[info]", "client timed out", "while reading PROXY protocol"]);
}

#[test]
fn the_named_client_is_the_one_that_rules_and_limits_are_about() {
    let ringwall = start(
        "limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
         server { listen 127.0.0.1:@HTTP@ proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;
         location /rules { allow 192.0.2.9; deny all; proxy_pass http://127.0.0.1:1; }
         location /limits { limit_req zone=one; proxy_pass http://127.0.0.1:1; } }",
    );
    let status = |source: &str, target: &str| {
        let mut client = Connection::plain(ringwall.address("HTTP"));
        client.send(v1(source, 1));
        client.get("a", target).status
    };
    assert_eq!(status("192.0.2.9", "/rules"), 502);
    assert_eq!(status("192.0.2.8", "/rules"), 403);
    assert_eq!(status("192.0.2.9", "/limits"), 502);
    assert_eq!(status("192.0.2.9", "/limits"), 503);
    assert_eq!(status("192.0.2.8", "/limits"), 502);
    ringwall.complaint_with(&["access forbidden by rule, client: 192.0.2.8"]);
}

#[test]
fn a_client_that_nobody_trusts_names_nobody() {
    let ringwall = start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; set_real_ip_from 192.0.2.1; real_ip_header X-Forwarded-For;
         location / {{ {SEEN} }} }}
         server {{ listen unix:@DIR@/socket; set_real_ip_from unix:; location / {{ {SEEN} }} }}"
    ));
    let seen = ask(
        ringwall.address("HTTP"),
        b"",
        "/",
        "X-Forwarded-For: 192.0.2.9\r\n",
    );
    assert_eq!(
        seen.as_deref(),
        Some("127.0.0.1|PORT|127.0.0.1|||||192.0.2.9, 127.0.0.1")
    );
    let socket = ringwall.site.file("socket");
    let output = eventually("curl answers", || {
        let output = std::process::Command::new("curl")
            .args(["-s", "--unix-socket"])
            .arg(&socket)
            .args(["-H", "X-Real-IP: 192.0.2.9", "http://a/"])
            .output()
            .expect("curl");
        output.status.success().then_some(output)
    });
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "192.0.2.9||unix:|||||192.0.2.9"
    );
}
