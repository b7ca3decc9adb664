//! gRPC through `grpc_pass`: Python's grpcio as client and server, beside
//! Debian's Nginx with the same configuration.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use crate::support::client::Connection;
use crate::support::nginx::Nginx;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Site, whole};
use crate::support::tools::{self, Background};
use crate::support::{eventually, find, local};

/// `server PORT [STEM]` serves, with mutual TLS if STEM names certificates;
/// `client ADDRESS METHOD [STEM]` makes calls and prints what came of each:
/// `all` kinds, one method, or how each of `Failure/METHOD/METHOD` fails.
const PEER: &str = r#"
import grpc, sys, time, threading
from concurrent import futures

def read(name):
    with open(name, 'rb') as file: return file.read()

ended = threading.Event()

def echo(request, context):
    context.send_initial_metadata((('x-initial', dict(context.invocation_metadata()).get('x-word', '')),))
    context.set_trailing_metadata((('x-trailing', 'end'), ('x-bytes-bin', b'\x00\xff')))
    return request

def count(request, context):
    for number in range(int(request)): yield str(number).encode()

def total(requests, context):
    return str(sum(len(request) for request in requests)).encode()

def talk(requests, context):
    for request in requests: yield b'you said ' + request

def missing(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, 'no such thing: 100% \u00e9')

def half(request, context):
    yield b'one'
    context.abort(grpc.StatusCode.DATA_LOSS, 'the rest is gone')

def sleepy(request, context):
    ended.clear()
    context.add_callback(ended.set)
    ended.wait(20)
    return b''

def remaining(request, context):
    left = context.time_remaining()
    return b'some' if left is not None and left < 60 else b'none'

def was_ended(request, context):
    return b'ended' if ended.wait(20) else b'still there'

def who(request, context):
    return context.auth_context().get('x509_common_name', [b'nobody'])[0]

def serve(port, stem):
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    handlers = {'Echo': unary(echo), 'Count': stream(count), 'Missing': unary(missing),
        'Half': stream(half), 'Sleepy': unary(sleepy), 'Remaining': unary(remaining),
        'WasEnded': unary(was_ended), 'Who': unary(who),
        'Total': grpc.stream_unary_rpc_method_handler(total),
        'Talk': grpc.stream_stream_rpc_method_handler(talk)}
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[('grpc.so_reuseport', 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('t.Peer', handlers),))
    if stem:
        server.add_secure_port('127.0.0.1:' + port, grpc.ssl_server_credentials(
            ((read('server.key'), read('server.crt')),), read('ca.crt'), True))
    else:
        server.add_insecure_port('127.0.0.1:' + port)
        server.add_insecure_port('unix:grpc.sock')
    server.start()
    server.wait_for_termination()

def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return f'{error.code().name} {error.details()!r}'
    return 'no failure'

def calls(channel):
    unary = lambda name: channel.unary_unary('/t.Peer/' + name)
    request = unary('Echo').with_call(b'hello', metadata=(('x-word', 'word'),), timeout=30)
    initial, trailing = dict(request[1].initial_metadata()), dict(request[1].trailing_metadata())
    yield 'echo', request[0], initial.get('x-initial'), trailing.get('x-trailing'), trailing.get('x-bytes-bin')
    large = bytes(range(256)) * 12000
    yield 'large', unary('Echo')(large, timeout=30) == large
    yield 'empty', unary('Echo')(b'', timeout=30)
    yield 'count', b' '.join(channel.unary_stream('/t.Peer/Count')(b'200', timeout=30)).count(b' ')
    pieces = (b'x' * 50000 for _ in range(40))
    yield 'total', channel.stream_unary('/t.Peer/Total')(pieces, timeout=30)
    said = threading.Semaphore(1)
    def words():
        for word in (b'a', b'b', b'c'):
            said.acquire()
            yield word
    for answer in channel.stream_stream('/t.Peer/Talk')(words(), timeout=30):
        yield 'talk', answer
        said.release()
    yield 'missing', failure(lambda: unary('Missing')(b'', timeout=30))
    yield 'half', failure(lambda: list(channel.unary_stream('/t.Peer/Half')(b'', timeout=30)))
    yield 'unknown', failure(lambda: unary('Unknown')(b'', timeout=30))
    yield 'remaining', unary('Remaining')(b'', timeout=30)
    yield 'deadline', failure(lambda: unary('Sleepy')(b'', timeout=0.5)).split()[0]
    yield 'after deadline', unary('WasEnded')(b'', timeout=30)

def main(role, place, *rest):
    if role == 'server': return serve(place, *(rest or ('',)))
    what, stem = (rest + ('',))[:2]
    if stem:
        credentials = grpc.ssl_channel_credentials(read('ca.crt'), read(stem + '.key'), read(stem + '.crt'))
        options = [('grpc.ssl_target_name_override', 'test.example')]
        channel = grpc.secure_channel(place, credentials, options)
    else:
        channel = grpc.insecure_channel(place)
    if what == 'all':
        for line in calls(channel): print(*line, flush=True)
    elif what.startswith('Failure'):
        for method in what.split('/')[1:]:
            print(method, failure(lambda: channel.unary_unary('/t.Peer/' + method)(b'', timeout=30)))
    else:
        print(channel.unary_unary('/t.Peer/' + what)(b'hi', timeout=30))

main(*sys.argv[1:])
"#;

fn serve(site: &mut Site, stem: &str) -> Background {
    let port = site.port("GRPC");
    let script = site.write("peer.py", PEER).display().to_string();
    let folder = site.path().to_owned();
    serve_at(&folder, &script, port, stem)
}

fn serve_at(folder: &Path, script: &str, port: u16, stem: &str) -> Background {
    let mut arguments = vec![script.to_owned(), "server".to_owned(), port.to_string()];
    arguments.extend((!stem.is_empty()).then(|| stem.to_owned()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Background::start(folder, &tools::python("python3"), &arguments);
    // Its sockets are of IPv6, and a stray connection does no harm.
    eventually("the gRPC server listens", || {
        TcpStream::connect(local(port)).ok()
    });
    server
}

/// One unary call by HTTP/1.1, for which this gateway is as good as for others:
/// what came, as it came.
fn by_http_1(address: SocketAddr, method: &str, message: &[u8]) -> String {
    let mut client = Connection::plain(address);
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let body = [&[0][..], &length, message].concat();
    client.send(format!(
        "POST /t.Peer/{method} HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\
         Content-Type: application/grpc\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    client.send(&body);
    let all = client.until_close().expect("an answer");
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn trailers_and_answers_of_nothing_else_reach_http_1_clients_too() {
    let mut site = Site::new();
    let _server = serve(&mut site, "");
    let ringwall = site.start(&whole(
        "worker_processes 1;",
        "",
        "server { listen 127.0.0.1:@HTTP@; location / { grpc_pass grpc://127.0.0.1:@GRPC@; } }",
    ));
    let address = ringwall.address("HTTP");
    let echoed = by_http_1(address, "Echo", b"hello");
    assert!(echoed.starts_with("HTTP/1.1 200 OK\r\n"), "{echoed}");
    assert!(
        find(echoed.as_bytes(), b"\0\0\0\0\x05hello").is_some(),
        "{echoed}"
    );
    let (_, trailers) = echoed.split_once("\r\n0\r\n").expect("trailers");
    assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
    assert!(trailers.contains("x-trailing: end\r\n"), "{trailers}");
    let refused = by_http_1(address, "Missing", b"");
    assert!(refused.contains("grpc-status: 5\r\n"), "{refused}");
    assert!(refused.contains("grpc-message: no such thing"), "{refused}");
}

/// What a client of grpcio has to say of `method`, or of `all` kinds of calls,
/// with the certificate `stem` if it names one.
fn call(folder: &Path, address: SocketAddr, method: &str, stem: &str) -> String {
    let address = address.to_string();
    let mut arguments = vec!["peer.py", "client", &address, method];
    arguments.extend((!stem.is_empty()).then_some(stem));
    tools::run(folder, &tools::python("python3"), &arguments).expect_ok()
}

#[test]
fn every_kind_of_call_is_answered_through_ringwall_as_by_the_server_itself() {
    let (mut site, _pki) = Site::with_pki();
    let _server = serve(&mut site, "");
    let itself = local(site.port("GRPC"));
    let location =
        "http2 on; client_max_body_size 10m; location / { grpc_pass grpc://127.0.0.1:@GRPC@; }";
    let ringwall = site.start(&whole(
        "worker_processes 1;",
        "",
        &format!(
            "server {{ listen 127.0.0.1:@HTTP@; {location} }}\n\
             server {{ listen 127.0.0.1:@TLS@ ssl; {CERTIFICATES} {MUTUAL} {location} }}"
        ),
    ));
    let folder = ringwall.site.path();
    let expected = call(folder, itself, "all", "");
    for said in [
        "echo b'hello' word end b'\\x00\\xff'\n",
        "large True\n",
        "count 199\n",
        "total b'2000000'\n",
        "talk b'you said c'\n",
        "missing NOT_FOUND",
        "half DATA_LOSS",
        "deadline DEADLINE_EXCEEDED\nafter deadline b'ended'\n",
    ] {
        assert!(expected.contains(said), "{said} in {expected}");
    }
    assert_eq!(call(folder, ringwall.address("HTTP"), "all", ""), expected);
    let tls = ringwall.address("TLS");
    assert_eq!(call(folder, tls, "all", "client"), expected);
    let stranger = call(folder, tls, "Failure/Echo", "stranger");
    assert!(stranger.starts_with("Echo UNAVAILABLE"), "{stranger}");
}

#[test]
fn a_server_that_demands_a_client_certificate_is_called_with_the_configured_one() {
    let (mut site, _pki) = Site::with_pki();
    let _server = serve(&mut site, "server");
    let itself = local(site.port("GRPC"));
    let upstream = |stem: &str| {
        format!(
            "http2 on; client_max_body_size 10m; location / {{ grpc_pass grpcs://127.0.0.1:@GRPC@; grpc_ssl_name {HOST};\n\
             grpc_ssl_server_name on; grpc_ssl_verify on;\n\
             grpc_ssl_trusted_certificate @DIR@/ca.crt;\n\
             grpc_ssl_certificate @DIR@/{stem}.crt; grpc_ssl_certificate_key @DIR@/{stem}.key; }}"
        )
    };
    let (right, wrong) = (upstream("client"), upstream("stranger"));
    let ringwall = site.start(&whole(
        "worker_processes 1;",
        "",
        &format!(
            "server {{ listen 127.0.0.1:@TLS@ ssl; {CERTIFICATES} {MUTUAL} {right} }}\n\
             server {{ listen 127.0.0.1:@WRONG@; {wrong} }}"
        ),
    ));
    let folder = ringwall.site.path();
    let tls = ringwall.address("TLS");
    let expected = call(folder, itself, "all", "client");
    assert_eq!(call(folder, tls, "all", "client"), expected);
    assert_eq!(call(folder, tls, "Who", "client"), "b'client.example'\n");
    let refused = call(folder, ringwall.address("WRONG"), "Failure/Echo", "");
    assert!(refused.starts_with("Echo UNAVAILABLE"), "{refused}");
}

#[test]
fn groups_and_sockets_are_called_and_fields_set_and_hidden_as_the_location_says() {
    let mut site = Site::new();
    let _server = serve(&mut site, "");
    let itself = local(site.port("GRPC"));
    let server = |port: &str, location: &str| {
        format!(
            "server {{ listen 127.0.0.1:@{port}@; http2 on; client_max_body_size 10m;\n\
             location / {{ {location} }} }}\n"
        )
    };
    let group = |name: &str| {
        format!("upstream {name} {{ server 127.0.0.1:@NOBODY@; server unix:@DIR@/grpc.sock; }}\n")
    };
    let ringwall = site.start(&whole(
        "worker_processes 1;",
        "",
        &[
            group("group"),
            group("once"),
            server("GROUP", "grpc_pass grpc://group;"),
            server("ONCE", "grpc_pass grpc://once; grpc_next_upstream off;"),
            server("SOCKET", "grpc_pass unix:@DIR@/grpc.sock;"),
            server(
                "SET",
                "grpc_pass 127.0.0.1:@GRPC@; grpc_set_header X-Word other;",
            ),
            server(
                "HIDDEN",
                "grpc_pass 127.0.0.1:@GRPC@; grpc_hide_header X-Initial;",
            ),
        ]
        .concat(),
    ));
    let folder = ringwall.site.path();
    let through = |port: &str| call(folder, ringwall.address(port), "all", "");
    let expected = call(folder, itself, "all", "");
    assert!(expected.contains("echo b'hello' word end"), "{expected}");
    for port in ["GROUP", "SOCKET"] {
        assert_eq!(through(port), expected, "{port}");
    }
    let set = expected.replace("b'hello' word end", "b'hello' other end");
    assert_eq!(through("SET"), set);
    let hidden = expected.replace("b'hello' word end", "b'hello' None end");
    assert_eq!(through("HIDDEN"), hidden);
    // The first of the group is asked, and nobody else.
    let refused = call(folder, ringwall.address("ONCE"), "Failure/Echo", "");
    assert!(refused.starts_with("Echo UNAVAILABLE"), "{refused}");
    let log = ringwall.complaint_with(&["connect() failed", "/t.Peer/Echo"]);
    assert!(log.contains("upstream: \"grpc://127.0.0.1:"), "{log}");
}

#[test]
fn calls_go_on_when_the_server_has_been_restarted() {
    let secure = format!(
        "grpc_pass grpcs://127.0.0.1:@GRPC@; grpc_ssl_name {HOST}; grpc_ssl_verify on;\n\
         grpc_ssl_trusted_certificate @DIR@/ca.crt; grpc_ssl_certificate @DIR@/client.crt;\n\
         grpc_ssl_certificate_key @DIR@/client.key;"
    );
    for (stem, pass) in [
        ("", "grpc_pass grpc://127.0.0.1:@GRPC@;"),
        ("server", &*secure),
    ] {
        let (mut site, _pki) = Site::with_pki();
        let server = serve(&mut site, stem);
        let port = site.port("GRPC");
        let ringwall = site.start(&whole(
            "worker_processes 1;",
            "",
            &format!("server {{ listen 127.0.0.1:@HTTP@; http2 on; location / {{ {pass} }} }}"),
        ));
        let (folder, address) = (ringwall.site.path(), ringwall.address("HTTP"));
        assert_eq!(call(folder, address, "Echo", ""), "b'hi'\n", "{pass}");
        drop(server);
        let failed = call(folder, address, "Failure/Echo", "");
        assert!(failed.starts_with("Echo UNAVAILABLE"), "{pass}: {failed}");
        let script = ringwall.site.file("peer.py").display().to_string();
        let _server = serve_at(folder, &script, port, stem);
        assert_eq!(call(folder, address, "Echo", ""), "b'hi'\n", "{pass}");
    }
}

#[test]
fn what_fails_before_the_server_answers_is_said_as_nginx_says_it() {
    let (mut site, _pki) = Site::with_pki();
    let _server = serve(&mut site, "");
    let content = |port: &str| {
        format!(
            "server {{ listen 127.0.0.1:{port} http2; grpc_read_timeout 500ms;\n\
             location / {{ grpc_pass grpc://127.0.0.1:@GRPC@; }}\n\
             location = /t.Peer/Echo {{ grpc_pass grpc://127.0.0.1:@NOBODY@; }}\n\
             location = /t.Peer/Who {{ deny all; }}\n\
             location = /t.Peer/Total {{ return 401; }}\n\
             location = /t.Peer/Count {{ return 404; }}\n\
             location = /t.Peer/Talk {{ return 429; }} }}"
        )
    };
    let nginx = Nginx::start(&mut site, &content("@NGINX@"));
    let ringwall = site.start(&whole("worker_processes 1;", "", &content("@HTTP@")));
    let folder = ringwall.site.path();
    let methods = "Failure/Sleepy/Echo/Who/Total/Count/Talk";
    let of_nginx = call(folder, nginx.address(), methods, "");
    for said in [
        "Sleepy UNAVAILABLE",
        "Echo UNAVAILABLE",
        "Who PERMISSION_DENIED",
        "Total UNAUTHENTICATED",
        "Count UNIMPLEMENTED",
        "Talk UNAVAILABLE",
    ] {
        assert!(of_nginx.contains(said), "{said} in {of_nginx}");
    }
    assert_eq!(
        call(folder, ringwall.address("HTTP"), methods, ""),
        of_nginx
    );
}
