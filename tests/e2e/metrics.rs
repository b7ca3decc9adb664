//! What an operator can count on: figures that agree with what happened, in
//! forms that Prometheus and Nginx's users read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustls::version::TLS13;

use crate::support::client::{Connection, TlsClient, Trust};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::pki::Authority;
use crate::support::ringwall::{CERTIFICATES, HOST, MUTUAL, Ringwall, Site, http, whole};
use crate::support::tools;

const SCRAPE: &str = "server { listen 127.0.0.1:@METRICS@; server_name scrape;\n\
     location = /metrics { metrics; } location = /status { stub_status; } }";

/// Series with their values, as a scrape gives them.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn of(ringwall: &Ringwall) -> Self {
        let mut connection = Connection::plain(ringwall.address("METRICS"));
        Self::parse(&connection.get("scrape", "/metrics").text())
    }

    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let series = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Self(series.collect())
    }

    /// The sum of all series of this name whose labels contain all of these.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let series = self.0.iter().filter(|(series, _)| {
            let (family, rest) = series.split_once('{').unwrap_or((series, ""));
            family == name && labels.iter().all(|label| rest.contains(label))
        });
        series.map(|(_, value)| value).sum()
    }
}

/// Waits until a sum is what it should be.
fn becomes(ringwall: &Ringwall, name: &str, labels: &[&str], expected: f64) {
    eventually(&format!("{name} {labels:?} becomes {expected}"), || {
        (Scrape::of(ringwall).sum(name, labels) == expected).then_some(())
    });
}

#[test]
fn the_figures_agree_with_what_happened() {
    let origin = Origin::hello();
    let (site, pki) = Site::with_pki();
    let stranger = Authority::new("Stranger").client("mallory");
    let ringwall = site.start(&whole(
        "worker_processes 2;",
        "",
        &format!(
            "{SCRAPE} upstream backend {{ server {}; keepalive 4; }}\n\
             server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
             {CERTIFICATES} {MUTUAL}\n\
             location / {{ proxy_pass http://backend; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; }}\n\
             location /no {{ return 403; }} }}",
            origin.address()
        ),
    ));
    let address = ringwall.address("TLS");
    let client = TlsClient::build(Trust::Ca(&pki.ca), Some(&pki.client), &[&TLS13]);
    let mut first = client.connect(address, HOST).expect("a handshake");
    for _ in 0..3 {
        assert_eq!(first.get(HOST, "/").status, 200);
    }
    assert_eq!(first.get(HOST, "/no").status, 403);
    let mut second = client.connect(address, HOST).expect("a handshake");
    assert_eq!(second.get(HOST, "/").status, 200);
    assert!(second.resumed());
    let refused = TlsClient::with_identity(&pki.ca, &stranger).connect(address, HOST);
    assert!(refused.map_or(true, |mut c| c.try_get(HOST, "/").is_err()));

    let server = format!("server=\"{HOST}\"");
    let requests = "ringwall_http_requests_total";
    becomes(&ringwall, requests, &[&server, "status=\"2xx\""], 4.0);
    becomes(&ringwall, requests, &[&server, "status=\"4xx\""], 1.0);
    let refusals = "ringwall_tls_handshakes_refused_total";
    becomes(&ringwall, refusals, &["client certificate"], 1.0);
    // The scrapes' own are idle until a worker sees that they have ended.
    becomes(&ringwall, "ringwall_connections", &["state=\"idle\""], 2.0);
    let scrape = Scrape::of(&ringwall);
    for (name, labels, expected) in [
        ("ringwall_tls_handshakes_total", "kind=\"full\"", 1.0),
        ("ringwall_tls_handshakes_total", "kind=\"ticket\"", 1.0),
        ("ringwall_tls_handshake_duration_seconds_count", "", 2.0),
        ("ringwall_client_certificates_total", "accepted", 2.0),
        (
            "ringwall_client_certificates_total",
            "unable to verify the first certificate",
            1.0,
        ),
        ("ringwall_upstream_requests_total", "backend", 4.0),
        ("ringwall_upstream_failures_total", "backend", 0.0),
        ("ringwall_upstream_active_requests", "backend", 0.0),
        ("ringwall_upstream_peer_up", "backend", 1.0),
        (
            "ringwall_upstream_request_duration_seconds_count",
            "backend",
            4.0,
        ),
        ("ringwall_upstream_connections_used_total", "backend", 4.0),
        ("ringwall_http_request_duration_seconds_count", &server, 5.0),
        ("ringwall_config_generation", "", 1.0),
        ("ringwall_config_reloads_total", "", 0.0),
        ("ringwall_log_lines_lost_total", "", 0.0),
        ("ringwall_connections", "state=\"writing\"", 1.0),
    ] {
        assert_eq!(scrape.sum(name, &[labels]), expected, "{name} {labels}");
    }
    let bytes = scrape.sum("ringwall_http_sent_bytes_total", &[&server]);
    assert!((500.0..5000.0).contains(&bytes), "{bytes}");
    assert!(scrape.sum("ringwall_buffers_allocated_total", &[]) >= 0.0);
    assert!(scrape.sum("process_start_time_seconds", &[]) > 1.6e9);
}

#[test]
fn sessions_from_the_cache_are_told_from_tickets() {
    let (site, pki) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "{SCRAPE} ssl_session_tickets off; ssl_session_cache shared:A:1m;\n\
         server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST}; {CERTIFICATES} return 204; }}"
    )));
    let client = TlsClient::build(Trust::Ca(&pki.ca), None, &[&TLS13]);
    for resumes in [false, true] {
        let mut connection = client
            .connect(ringwall.address("TLS"), HOST)
            .expect("a handshake");
        assert_eq!(connection.get(HOST, "/").status, 204);
        assert_eq!(connection.resumed(), resumes);
    }
    becomes(
        &ringwall,
        "ringwall_tls_handshakes_total",
        &["kind=\"cache\""],
        1.0,
    );
    becomes(
        &ringwall,
        "ringwall_client_certificates_total",
        &["result=\"none\""],
        2.0,
    );
}

#[test]
fn a_backend_that_fails_is_counted_and_shown_as_down() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&http(&format!(
        "{SCRAPE} upstream pair {{ server 127.0.0.1:@DEAD@ fail_timeout=60s; server {}; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass http://pair; }} }}",
        origin.address()
    )));
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    for _ in 0..4 {
        assert_eq!(connection.get(HOST, "/").status, 200);
    }
    let dead = format!("peer=\"{}\"", ringwall.address("DEAD"));
    let live = format!("peer=\"{}\"", origin.address());
    let up = "ringwall_upstream_peer_up";
    eventually("the dead peer is down", || {
        let scrape = Scrape::of(&ringwall);
        let down = scrape.sum(up, &[&dead]) == 0.0 && scrape.sum(up, &[&live]) == 1.0;
        down.then_some(())
    });
    let scrape = Scrape::of(&ringwall);
    let failures = "ringwall_upstream_failures_total";
    assert_eq!(scrape.sum(failures, &[&dead]), 1.0);
    assert_eq!(scrape.sum(failures, &[&live]), 0.0);
    assert_eq!(scrape.sum("ringwall_upstream_retries_total", &[]), 1.0);
}

#[test]
fn an_error_page_of_a_backend_is_no_retry() {
    let origin = Origin::hello();
    let ringwall = Site::new().start(&http(&format!(
        "{SCRAPE} upstream pages {{ server {}; }}\n\
         server {{ listen 127.0.0.1:@HTTP@; error_page 502 = @page;\n\
         location / {{ proxy_pass http://127.0.0.1:@DEAD@; }}\n\
         location @page {{ proxy_pass http://pages; }} }}",
        origin.address()
    )));
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(connection.get(HOST, "/").status, 200);
    let pages = ["upstream=\"pages\""];
    becomes(
        &ringwall,
        "ringwall_upstream_connections_used_total",
        &pages,
        1.0,
    );
    let retries = Scrape::of(&ringwall).sum("ringwall_upstream_retries_total", &[]);
    assert_eq!(retries, 0.0);
}

#[test]
fn the_expiry_of_every_certificate_is_shown() {
    let (site, pki) = Site::with_pki();
    fs::write(site.file("ca.crl"), pki.ca.crl(&[], 5)).expect("writable");
    let ringwall = site.start(&http(&format!(
        "{SCRAPE} server {{ listen 127.0.0.1:@TLS@ ssl; server_name {HOST};\n\
         {CERTIFICATES} {MUTUAL} ssl_crl @DIR@/ca.crl;\n\
         location / {{ proxy_pass https://127.0.0.1:@BACKEND@;\n\
         proxy_ssl_certificate @DIR@/client.crt;\n\
         proxy_ssl_certificate_key @DIR@/client.key; }} }}"
    )));
    let scrape = Scrape::of(&ringwall);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64();
    let expiry = "ringwall_certificate_expiry_timestamp_seconds";
    for (kind, file) in [
        ("server", "server.crt"),
        ("client", "client.crt"),
        ("ca", "ca.crt"),
        ("crl", "ca.crl"),
    ] {
        let labels = [format!("kind=\"{kind}\""), format!("{file}\"")];
        let at = scrape.sum(expiry, &[&labels[0], &labels[1], "subject=\"CN="]);
        assert!(at > now, "{kind}: {at}, {:?}", scrape.0.keys());
    }
    let crl = scrape.sum(expiry, &["crl"]) - now;
    assert!((4.9..=5.1).contains(&(crl / 86_400.0)), "{crl}");
    // What ends within days is complained of, whatever it is.
    ringwall.complaint_with(&["[error]", "CRL", "ca.crl", "expires in"]);
}

#[test]
fn the_test_warns_of_all_that_ends_soon() {
    let (mut site, _) = Site::with_pki();
    let ca = Authority::new("Short");
    fs::write(site.file("ca.crl"), ca.crl(&[], 3)).expect("writable");
    fs::write(site.file("ca.crt"), ca.pem()).expect("writable");
    let configuration = http(&format!(
        "server {{ listen 127.0.0.1:@TLS@ ssl; {CERTIFICATES} {MUTUAL}\n\
         ssl_crl @DIR@/ca.crl; return 204; }}"
    ));
    let outcome = site.check(&configuration);
    assert!(outcome.ok(), "{outcome:?}");
    assert!(outcome.stderr.contains("CRL \""), "{outcome:?}");
    assert!(outcome.stderr.contains("expires in"), "{outcome:?}");
    let short = tools::run(
        site.path(),
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "9",
            "-subj",
            "/CN=Nearly gone",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ],
    );
    assert!(short.ok(), "{short:?}");
    let outcome = site.check(&configuration.replace("ssl_crl @DIR@/ca.crl;", ""));
    assert!(outcome.ok(), "{outcome:?}");
    assert!(
        outcome
            .stderr
            .contains("[warn] CA certificate \"CN=Nearly gone\"")
            && outcome.stderr.contains("expires in"),
        "{outcome:?}"
    );
}

#[test]
fn reloads_are_counted_and_counts_outlive_them() {
    let configuration = http(&format!(
        "{SCRAPE} server {{ listen 127.0.0.1:@HTTP@; server_name a; return 204; }}"
    ));
    let mut ringwall = Site::new().start(&configuration);
    let mut connection = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(connection.get("a", "/").status, 204);
    ringwall.reload();
    let reloads = "ringwall_config_reloads_total";
    becomes(&ringwall, reloads, &["ok"], 1.0);
    becomes(&ringwall, "ringwall_config_generation", &[], 2.0);
    assert_eq!(connection.get("a", "/").status, 204);
    ringwall.rewrite("nonsense");
    ringwall.reload();
    becomes(&ringwall, reloads, &["failed"], 1.0);
    let served = ["server=\"a\"", "2xx"];
    becomes(&ringwall, "ringwall_http_requests_total", &served, 2.0);
}

#[test]
fn openmetrics_is_given_to_those_who_ask_and_only_reading_is_allowed() {
    let ringwall = Site::new().start(&http(SCRAPE));
    let mut connection = Connection::plain(ringwall.address("METRICS"));
    connection.send(
        "GET /metrics HTTP/1.1\r\nHost: a\r\n\
         Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.1\r\n\r\n",
    );
    let response = connection.response("GET");
    let content_type = response.header("content-type").expect("a type");
    assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
    let text = response.text();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    assert!(text.contains("# TYPE ringwall_http_requests counter\n"));
    assert!(text.contains("# UNIT ringwall_http_sent_bytes bytes\n"));
    let response = connection.get("a", "/metrics");
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for target in ["/metrics", "/status"] {
        let mut connection = Connection::plain(ringwall.address("METRICS"));
        connection.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(connection.response("POST").status, 405);
    }
}

#[test]
fn the_status_page_has_the_text_of_nginx() {
    let ringwall = Site::new().start(&http(SCRAPE));
    let mut idle = Connection::plain(ringwall.address("METRICS"));
    assert_eq!(idle.get("a", "/status").status, 200);
    let mut connection = Connection::plain(ringwall.address("METRICS"));
    let response = connection.get("a", "/status");
    assert_eq!(response.header("content-type"), Some("text/plain"));
    assert_eq!(
        response.text(),
        "Active connections: 2 \nserver accepts handled requests\n 2 2 2 \n\
         Reading: 0 Writing: 1 Waiting: 1 \n"
    );
}

/// Names of ours in a dashboard or in rules.
fn names_in(text: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names: Vec<_> = text
        .split(|c| !word(c))
        .filter(|name| name.starts_with("ringwall_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn operations_and_wake_ups_are_counted_inside_the_sandbox_and_out_of_it() {
    for (main, events) in [
        ("", "use io_uring;"),
        ("seccomp off; landlock off;", "use io_uring;"),
        ("", "use epoll;"),
    ] {
        let ringwall = Site::new().start(&whole(
            &format!("worker_processes 1; {main}"),
            events,
            &format!("{SCRAPE} server {{ listen 127.0.0.1:@HTTP@; return 204; }}"),
        ));
        let mut connection = Connection::plain(ringwall.address("HTTP"));
        for _ in 0..5 {
            assert_eq!(connection.get("a", "/").status, 204);
        }
        // A second look at its ring, for overflows.
        let maps = fs::read_to_string(format!("/proc/{}/maps", ringwall.pid())).expect("it runs");
        let rings = maps
            .lines()
            .filter(|line| line.contains(" r--s ") && line.ends_with("[io_uring]"));
        assert_eq!(rings.count(), usize::from(events.contains("uring")));
        for name in ["overflows", "completions_lost"] {
            let name = format!("ringwall_ring_{name}_total");
            assert_eq!(
                Scrape::of(&ringwall).0[&format!("{name}{{worker=\"0\"}}")],
                0.0
            );
        }
        eventually(&format!("{main} {events}: all are counted"), || {
            let scrape = Scrape::of(&ringwall);
            let operations = |kind: &str| {
                let kind = format!("operation=\"{kind}\"");
                scrape.sum("ringwall_ring_operations_total", &["worker=\"0\"", &kind])
            };
            let exchanges = operations("receive").min(operations("send"));
            // A client that waits for its answer lets the worker sleep.
            let wakeups = scrape.sum("ringwall_ring_wakeups_total", &["worker=\"0\""]);
            (operations("accept") >= 1.0 && exchanges >= 5.0 && wakeups >= 5.0).then_some(())
        });
    }
}

/// One whose scrape has every family.
fn with_every_family() -> (Ringwall, Origin) {
    let origin = Origin::hello();
    let (site, _) = Site::with_pki();
    let ringwall = site.start(&http(&format!(
        "{SCRAPE} server {{ listen 127.0.0.1:@TLS@ ssl; {CERTIFICATES} {MUTUAL}\n\
         location / {{ proxy_pass {}; }} }}",
        origin.url()
    )));
    (ringwall, origin)
}

#[test]
fn the_reference_lists_what_a_scrape_has_and_nothing_else() {
    let (ringwall, _origin) = with_every_family();
    let text = Connection::plain(ringwall.address("METRICS")).get("scrape", "/metrics");
    let text = text.text();
    // # TYPE name kind
    let mut scraped: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    scraped.sort_unstable();
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let reference = fs::read_to_string(reference).expect("UTF-8");
    let rows: Vec<&str> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
        .collect();
    assert_eq!(names_in(&rows.join(" ")), scraped);
}

#[test]
fn the_samples_for_grafana_and_prometheus_name_what_a_scrape_has() {
    let (ringwall, _origin) = with_every_family();
    let scrape = Scrape::of(&ringwall);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for (file, parse) in [
        (
            "grafana-dashboard.json",
            "import json, sys; d = json.load(open(sys.argv[1])); \
             assert all(t['expr'] for p in d['panels'] for t in p.get('targets', []))",
        ),
        (
            "prometheus-alerts.yml",
            "import yaml, sys; d = yaml.safe_load(open(sys.argv[1])); \
             assert all(r['alert'] and r['expr'] and r['annotations']['summary'] \
             for g in d['groups'] for r in g['rules'])",
        ),
    ] {
        let path = folder.join(file);
        let text = fs::read_to_string(&path).expect("UTF-8");
        let path = path.to_str().expect("UTF-8");
        tools::run(&folder, &tools::python("python3"), &["-c", parse, path]).expect_ok();
        let names = names_in(&text);
        assert!(names.len() > 8, "{file}: {names:?}");
        for name in names {
            let known = scrape.0.keys().any(|series| {
                let family = series.split('{').next().expect("a name");
                family == name
            });
            assert!(known, "{file} names {name}, which no scrape has");
        }
    }
}
