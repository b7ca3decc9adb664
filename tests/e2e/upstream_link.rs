//! How backends are connected to: from which address, with which word about
//! the client, looked after by whom.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use crate::support::client::Connection;
use crate::support::nginx::Nginx;
use crate::support::origin::{Origin, ok};
use crate::support::ringwall::{HOST, Ringwall, Site, http};
use crate::support::tools;

/// A backend on every loopback address that tells where it was reached from.
fn tells_source() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let accepting = listener.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        while let Ok((mut stream, peer)) = accepting.accept() {
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while stream.read(&mut piece).is_ok_and(|count| count > 0) {
                    let text = peer.ip().to_string();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                        text.len()
                    );
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (listener, address)
}

fn start(content: &str) -> Ringwall {
    Site::new().start(&http(content))
}

#[test]
fn backends_are_connected_to_from_the_address_that_nginx_would_use() {
    let (_listener, address) = tells_source();
    let content = format!(
        "proxy_bind 127.0.0.3;\n\
         server {{ listen 127.0.0.1:@PORT@;\n\
         location /inherited {{ proxy_pass http://{address}; }}\n\
         location /fixed {{ proxy_pass http://{address}; proxy_bind 127.0.0.2; }}\n\
         location /off {{ proxy_pass http://{address}; proxy_bind off; }}\n\
         location /client {{ proxy_pass http://{address}; proxy_bind $remote_addr; }}\n\
         location /asked {{ proxy_pass http://{address}; proxy_bind $arg_from; }}\n\
         location /foreign {{ proxy_pass http://{address}; proxy_bind 192.0.2.1; }} }}"
    );
    let ringwall = start(&content.replace("@PORT@", "@HTTP@"));
    let mut site = Site::new();
    let nginx = Nginx::start(&mut site, &content.replace("@PORT@", "@NGINX@"));
    for target in [
        "/inherited",
        "/fixed",
        "/off",
        "/client",
        "/asked?from=127.0.0.9",
        "/asked?from=",
        "/asked?from=nonsense",
        "/fixed",
        "/off",
    ] {
        let [ours, theirs] = [ringwall.address("HTTP"), nginx.address()].map(|address| {
            let response = Connection::plain(address).get("a", target);
            let text = (response.status == 200).then(|| response.text());
            (response.status, text)
        });
        assert_eq!(ours, theirs, "{target}");
    }
    ringwall.complaint_with(&["invalid local address \"nonsense\""]);
    let foreign = Connection::plain(ringwall.address("HTTP")).get("a", "/foreign");
    assert_eq!(foreign.status, 502, "an address that is not ours");
    ringwall.complaint_with(&["Cannot assign requested address", "while connecting"]);
}

#[test]
fn a_connection_from_one_address_is_not_used_for_another() {
    let (_listener, address) = tells_source();
    let ringwall = start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@;\n\
         location / {{ proxy_pass http://{address}; proxy_bind $arg_from; }} }}"
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..3 {
        for from in ["127.0.0.2", "127.0.0.3", "127.0.0.1"] {
            assert_eq!(client.get("a", &format!("/?from={from}")).text(), from);
        }
    }
}

#[test]
fn a_backend_that_refuses_a_bound_connection_is_reported_as_such() {
    let port = crate::support::free_port();
    let ringwall = start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@;\n\
         location / {{ proxy_pass http://127.0.0.1:{port}; proxy_bind 127.0.0.2; }} }}"
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/").status, 502);
    ringwall.complaint_with(&["connect() failed (111: Connection refused)"]);
}

#[test]
fn transparent_binding_is_refused_by_name() {
    let outcome = Site::new().check(&http("proxy_bind $remote_addr transparent;"));
    assert!(
        outcome.stderr.contains("\"transparent\""),
        "{}",
        outcome.stderr
    );
    let outcome = Site::new().check(&http("proxy_bind nowhere;"));
    assert!(
        outcome.stderr.contains("invalid address \"nowhere\""),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_kernel_is_asked_to_look_after_backends_where_that_is_said() {
    let origin = Origin::hello();
    let ringwall = start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@;\n\
         location /on {{ proxy_pass http://{0}; proxy_socket_keepalive on; }}\n\
         location /off {{ proxy_pass http://localhost:{1}; }} }}",
        origin.address(),
        origin.port()
    ));
    let timers = || {
        let filter = format!("( dport = :{} )", origin.port());
        let shown = tools::run(
            ringwall.site.path(),
            "ss",
            &["-tnoH", "state", "established", &filter],
        );
        shown.expect_ok().matches("keepalive").count()
    };
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get("a", "/off").status, 200);
    assert_eq!(timers(), 0);
    assert_eq!(client.get("a", "/on").status, 200);
    assert_eq!(timers(), 1);
}

/// A backend that keeps what each connection begins with, up to and including
/// the first head.
fn keeps_beginnings() -> (Origin, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let origin = Origin::script(move |peer| {
        loop {
            let request = peer.request()?;
            kept.lock().expect("not poisoned").push(request.line);
            peer.send(&ok("ok"))?;
        }
    });
    (origin, seen)
}

#[test]
fn a_backend_is_told_who_the_client_is_before_anything_else() {
    let (origin, _) = keeps_beginnings();
    let ringwall = start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; proxy_protocol on;\n\
         location / {{ proxy_pass http://{}; }} }}",
        origin.address()
    ));
    let address = ringwall.address("HTTP");
    let socket = TcpStream::connect(address).expect("it listens");
    let port = socket.local_addr().expect("connected").port();
    let mut client = Connection::over(socket);
    client.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..2 {
        // The scripted backend takes the header for the request line.
        assert_eq!(client.response("GET").status, 200);
    }
    let line = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n",
        address.port()
    );
    let text = origin.all_received_text();
    assert_eq!(text.matches(&line).count(), 2, "{text}");
    assert!(text.starts_with(&line), "{text}");
    assert_eq!(
        origin.connections(),
        2,
        "one client's word is not another's"
    );
}

#[test]
fn version_2_comes_before_the_tls_handshake() {
    // The word that the backend needs first is the one in the clear.
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        use std::io::Read;
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut beginning = [0; 29];
        if stream.read_exact(&mut beginning).is_ok() {
            kept.lock()
                .expect("not poisoned")
                .extend_from_slice(&beginning);
        }
    });
    let ringwall = start(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; server_name {HOST};\n\
         location / {{ proxy_pass https://{address}; proxy_protocol v2; }} }}"
    ));
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(client.get(HOST, "/").status, 502);
    let seen = seen.lock().expect("not poisoned").clone();
    assert_eq!(&seen[..12], b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(seen[12..16], [0x21, 0x11, 0, 12]);
    assert_eq!(
        IpAddr::from([seen[16], seen[17], seen[18], seen[19]]),
        Ipv4Addr::LOCALHOST
    );
    assert_eq!(seen[28], 0x16, "then the ClientHello");
}
