//! What a request takes from the heap once its connection is warm: nothing over
//! HTTP/1.1.
//!
//! The server is this test binary, started again: there the library runs under an
//! allocator that counts, and says over a socket how far it has come.

use std::alloc::System;
use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use ringwall::cli::Cli;
use ringwall::runtime::process;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "most of it is for the end-to-end tests")]
mod support;

use support::client::{Connection, TlsClient};
use support::h2::H2;
use support::origin::Origin;
use support::pki::Pki;
use support::ringwall::{CERTIFICATES, HOST, MUTUAL, Site, http, is_listening};
use support::tools::Background;
use support::{eventually, local};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Where the server says how often it has allocated, in its directory.
const COUNTER: &str = "allocations.sock";
/// Until pools, buffers and tables have the size that they stay at.
const WARM_UP: usize = 1000;
const REQUESTS: usize = 2000;
/// For what is done by the clock and not for a request.
const OTHERS: usize = 10;
/// For a request of HTTP/2 where none is before or behind it: its task, its lane, its
/// future, the two parts of its answer's head, the table of streams, which is given
/// up when there is none, and the table of fields, which is cut to its size then.
const FOR_A_STREAM: usize = 7;

#[test]
#[ignore = "the server of the other tests"]
fn serve() {
    let counter = UnixListener::bind(COUNTER).expect("a directory of the test's own");
    thread::spawn(move || {
        for connection in counter.incoming() {
            let stats = ALLOCATOR.stats();
            let count = stats.allocations + stats.reallocations;
            writeln!(connection.expect("a reader"), "{count}").expect("it reads");
        }
    });
    let arguments = "ringwall -p . -c ringwall.conf -g".split(' ');
    let cli = Cli::parse_from(arguments.chain(["daemon off;"]));
    let ended = process::run(&cli.load_options());
    assert_eq!(ended, ExitCode::SUCCESS);
}

/// A server of this binary's that counts.
struct Counting {
    site: Site,
    pki: Pki,
    _backend: Origin,
    _running: Background,
}

impl Counting {
    /// `@TLS@` demands a client certificate and passes on to a backend in plain HTTP;
    /// `@HTTP@` passes on to `@TLS@` with one.
    fn start() -> Self {
        let (mut site, pki) = Site::with_pki();
        let backend = Origin::hello();
        let configuration = http(&format!(
            "keepalive_requests 100000;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_set_header Host {HOST};\n\
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             upstream backend {{ server {}; keepalive 4; keepalive_requests 100000; }}\n\
             upstream secure {{ server 127.0.0.1:@TLS@; keepalive 4;\n\
             keepalive_requests 100000; }}\n\
             server {{ listen 127.0.0.1:@TLS@ ssl http2; server_name {HOST};\n\
             {CERTIFICATES} {MUTUAL}\n\
             proxy_set_header X-Client-DN $ssl_client_s_dn;\n\
             location / {{ proxy_pass http://backend; }} }}\n\
             server {{ listen 127.0.0.1:@HTTP@;\n\
             proxy_ssl_certificate @DIR@/client.crt; proxy_ssl_certificate_key @DIR@/client.key;\n\
             proxy_ssl_trusted_certificate @DIR@/ca.crt; proxy_ssl_verify on;\n\
             proxy_ssl_name {HOST}; proxy_ssl_server_name on;\n\
             location / {{ proxy_pass https://secure; }} }}",
            backend.address()
        ));
        site.write("ringwall.conf", &configuration);
        let binary = env::current_exe().expect("this one");
        let running = Background::start(
            site.path(),
            binary.to_str().expect("a path in UTF-8"),
            &["serve", "--exact", "--ignored"],
        );
        for port in ["TLS", "HTTP"] {
            let port = site.port(port);
            eventually("the server listens", || is_listening(port).then_some(()));
        }
        Self {
            site,
            pki,
            _backend: backend,
            _running: running,
        }
    }

    fn address(&mut self, port: &str) -> SocketAddr {
        local(self.site.port(port))
    }

    /// How often it has allocated until now.
    fn allocations(&self) -> usize {
        let socket = self.site.file(COUNTER);
        let connection = UnixStream::connect(socket).expect("it listens");
        let text = io::read_to_string(connection).expect("it answers");
        text.trim().parse().expect("a number")
    }

    /// How often it allocates for [`REQUESTS`] requests of a warm connection.
    fn allocations_for(&self, mut request: impl FnMut()) -> usize {
        for _ in 0..WARM_UP {
            request();
        }
        let before = self.allocations();
        for _ in 0..REQUESTS {
            request();
        }
        self.allocations() - before
    }

    /// It allocates nothing for requests of this connection once it is warm.
    fn takes_nothing_for(&self, mut connection: Connection) {
        let allocations = self.allocations_for(|| {
            assert_eq!(connection.get(HOST, "/").text(), "hello");
        });
        assert!(allocations <= OTHERS, "{allocations} for {REQUESTS}");
    }
}

#[test]
fn a_request_over_a_kept_mtls_connection_allocates_nothing() {
    let mut server = Counting::start();
    let client = TlsClient::with_identity(&server.pki.ca, &server.pki.client);
    let address = server.address("TLS");
    server.takes_nothing_for(client.connect(address, HOST).expect("a handshake"));
}

#[test]
fn a_request_that_leaves_by_a_kept_mtls_connection_allocates_nothing() {
    let mut server = Counting::start();
    let connection = Connection::plain(server.address("HTTP"));
    server.takes_nothing_for(connection);
}

#[test]
fn a_request_of_http2_allocates_no_more_than_its_stream_takes() {
    let mut server = Counting::start();
    let client = TlsClient::with_identity(&server.pki.ca, &server.pki.client).speaking(&["h2"]);
    let address = server.address("TLS");
    let mut connection = H2::over(client.connect(address, HOST).expect("a handshake"));
    let mut streams = (1..).step_by(2);
    let allocations = server.allocations_for(|| {
        let answer = connection.get(streams.next().expect("another"), HOST, "/");
        assert_eq!(answer.body, b"hello");
    });
    let allowed = FOR_A_STREAM * REQUESTS + OTHERS;
    assert!(allocations <= allowed, "{allocations} for {REQUESTS}");
}
