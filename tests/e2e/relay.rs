//! The JSON relay: what callers of hand-made proxies send, and what none of
//! them may reach.

use serde_json::{Value, json};

use crate::support::client::{Connection, Response};
use crate::support::origin::{Origin, ok, ok_bytes};
use crate::support::ringwall::{Ringwall, Site, binary, http, is_listening};
use crate::support::tools::{self, Background};
use crate::support::{eventually, local};

/// A relay by HTTP to this default, with these lines; `base` without scheme.
fn relay(default: &str, lines: &str) -> Ringwall {
    Site::new().start(&http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; location = /proxy {{ json_relay http://{default}; {lines} }} }}"
    )))
}

fn post(ringwall: &Ringwall, call: &Value) -> Response {
    post_text(ringwall, &call.to_string())
}

fn post_text(ringwall: &Ringwall, text: &str) -> Response {
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(format!(
        "POST /proxy HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    ));
    client.response("POST")
}

fn error(response: &Response) -> String {
    let body: Value = serde_json::from_str(&response.text()).expect("JSON");
    format!(
        "{} {}",
        response.status,
        body["error"].as_str().expect("a text")
    )
}

/// What the backend got, as its answer.
fn telling() -> Origin {
    Origin::http(|request| {
        let mut text = request.line.clone();
        for (name, value) in &request.headers {
            text += &format!("\n{name}: {value}");
        }
        text += &format!("\n\n{}", String::from_utf8_lossy(&request.body));
        ok(&text)
    })
}

#[test]
fn a_call_goes_out_as_its_object_says() {
    let origin = telling();
    let ringwall = relay(&origin.address(), "proxy_set_header X-Gateway ringwall;");
    let response = post(
        &ringwall,
        &json!({ "method": "put", "path": "/v1/x?y=1", "body": { "amount": 3, "name": "정" },
                 "headers": { "X-Key": "k", "X-Gateway": "forged" } }),
    );
    assert_eq!(response.status, 200);
    let body = json!({ "amount": 3, "name": "정" }).to_string();
    let expected = format!(
        "PUT /v1/x?y=1 HTTP/1.1\nHost: {}\nX-Gateway: ringwall\nX-Key: k\n\
         Content-Type: application/json\nContent-Length: {}\n\n{body}",
        origin.address(),
        body.len()
    );
    assert_eq!(response.text(), expected);
    // Nothing of the caller's own request goes on.
    let response = post(&ringwall, &json!({ "method": "GET", "path": "/" }));
    assert_eq!(
        response.text(),
        format!(
            "GET / HTTP/1.1\nHost: {}\nX-Gateway: ringwall\n\n",
            origin.address()
        )
    );
    assert_eq!(origin.connections(), 1, "the connection is kept");
}

#[test]
fn status_fields_and_bytes_of_the_answer_come_back_unharmed() {
    let origin = Origin::http(|request| {
        match request.target() {
        "/missing" => b"HTTP/1.1 404 Nope\r\nX-Trace: t\r\nContent-Type: text/x\r\nContent-Length: 3\r\n\r\n\xff\x00\xfe".to_vec(),
        "/moved" => b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/else\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ if request.line.starts_with("HEAD") => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 45000\r\n\r\n".to_vec()
        }
        _ => ok_bytes(&"정산€".repeat(5000).into_bytes()),
    }
    });
    let ringwall = relay(&origin.address(), "");
    let response = post(&ringwall, &json!({ "method": "GET", "path": "/missing" }));
    assert_eq!(response.status, 404);
    assert_eq!(response.body, b"\xff\x00\xfe");
    assert_eq!(response.header("x-trace"), Some("t"));
    assert_eq!(response.header("content-type"), Some("text/x"));
    // A redirect is the caller's to see.
    let response = post(&ringwall, &json!({ "method": "GET", "path": "/moved" }));
    assert_eq!(response.status, 302);
    assert_eq!(response.header("location"), Some("http://127.0.0.1:1/else"));
    let response = post(&ringwall, &json!({ "method": "GET", "path": "/utf8" }));
    assert_eq!(response.text(), "정산€".repeat(5000));
    let response = post(&ringwall, &json!({ "method": "HEAD", "path": "/utf8" }));
    assert_eq!((response.status, response.body.len()), (200, 0));
}

#[test]
fn a_call_without_method_or_path_is_told_so() {
    let origin = telling();
    let ringwall = relay(&origin.address(), "");
    for call in [
        json!({}),
        json!({ "method": "GET" }),
        json!({ "path": "/" }),
    ] {
        let response = post(&ringwall, &call);
        assert_eq!(response.text(), r#"{"error":"Missing method or path"}"#);
        assert_eq!(response.status, 400);
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
    assert_eq!(error(&post_text(&ringwall, "{")), "400 Invalid JSON");
    let mut client = Connection::plain(ringwall.address("HTTP"));
    assert_eq!(error(&client.get("a", "/proxy")), "405 Method not allowed");
    assert_eq!(client.get("a", "/proxy?x").status, 404);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_target_that_cannot_be_reached_is_a_502_with_a_message() {
    let ringwall = relay(&format!("127.0.0.1:{}", crate::support::free_port()), "");
    let response = post(&ringwall, &json!({ "method": "GET", "path": "/" }));
    assert_eq!(error(&response), "502 Proxy request failed");
    assert!(response.text().contains("\"message\":\""));
    ringwall.complaint_with(&["Connection refused"]);
}

#[test]
fn no_target_beyond_the_list_is_reached_however_it_is_spelled() {
    let (listed, other) = (telling(), telling());
    let port = other.port();
    let ringwall = relay(&listed.address(), "");
    let mut names: Vec<String> = vec![
        // Addresses of this machine in every form.
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("LOCALHOST:{port}"),
        format!("localhost.:{port}"),
        format!("127.1:{port}"),
        format!("2130706433:{port}"),
        format!("0x7f000001:{port}"),
        format!("0x7f.0.0.1:{port}"),
        format!("0177.0.0.1:{port}"),
        format!("0:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::1]:{port}"),
        format!("[::]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("[::ffff:7f00:1]:{port}"),
        format!("[0:0:0:0:0:0:0:1]:{port}"),
        format!("[::127.0.0.1]:{port}"),
        format!("[64:ff9b::127.0.0.1]:{port}"),
        format!("[64:ff9b::7f00:1]:{port}"),
        format!("[2002:7f00:1::]:{port}"),
        format!("[fe80::1%25lo]:{port}"),
        format!("017700000001:{port}"),
        format!("127.0.0.1.nip.io:{port}"),
        format!("①②⑦.⓪.⓪.①:{port}"),
        format!("127。0。0。1:{port}"),
        format!("ｌocalhost:{port}"),
        format!("127.0.0.1:{port}."),
        format!("127.0.0.1: {port}"),
        format!("127.0.0.1:+{port}"),
        format!("127.0.0.1:0{port}"),
        format!("127.0.0.1:{}", u32::from(port) + 65536),
        "169.254.169.254".to_owned(),
        "metadata.google.internal".to_owned(),
        "example.com".to_owned(),
        String::new(),
        "unix:/run/x.sock".to_owned(),
    ];
    // The listed one with something round it.
    for (before, after) in [
        ("user@", ""),
        ("user:password@", ""),
        ("", "@127.0.0.1"),
        ("", "#@evil.example"),
        ("", "/"),
        ("", "?x"),
        ("", "\\@evil.example"),
        (" ", ""),
        ("", " "),
        ("", "\r\nX: y"),
        ("", "\0"),
        ("http://", ""),
        ("//", ""),
        ("", "%00"),
    ] {
        names.push(format!("{before}{}{after}", listed.address()));
    }
    for name in &names {
        let call = json!({ "method": "GET", "path": "/", "hostname": name });
        let response = post(&ringwall, &call);
        assert_eq!(
            response.text(),
            r#"{"error":"Target not allowed"}"#,
            "{name}"
        );
        assert_eq!(response.status, 403, "{name}");
    }
    for name in [
        json!(1),
        json!(["127.0.0.1"]),
        json!({ "a": 1 }),
        json!(true),
    ] {
        let call = json!({ "method": "GET", "path": "/", "hostname": name });
        assert_eq!(error(&post(&ringwall, &call)), "403 Target not allowed");
    }
    assert_eq!(listed.connections() + other.connections(), 0);
    // What names the listed one and no other is it.
    let call = json!({ "method": "GET", "path": "/", "hostname": listed.address() });
    assert_eq!(post(&ringwall, &call).status, 200);
}

#[test]
fn rules_on_methods_and_paths_hold() {
    let (default, other) = (telling(), telling());
    let ringwall = relay(
        &default.address(),
        &format!(
            "json_relay_allow localhost:{} methods=GET,POST path=/v1/;",
            other.port()
        ),
    );
    let call = |method: &str, path: &str| {
        let hostname = format!("localhost:{}", other.port());
        post(
            &ringwall,
            &json!({ "method": method, "path": path, "hostname": hostname }),
        )
    };
    assert_eq!(call("GET", "/v1/x").status, 200);
    assert_eq!(call("post", "/v1/").status, 200);
    let served = other.requests();
    for (method, path) in [
        ("DELETE", "/v1/x"),
        ("GET", "/"),
        ("GET", "/v2/x"),
        ("GET", "/v1"),
        ("GET", "/v1/../admin"),
        ("GET", "/v1/%2e%2e/admin"),
        ("GET", "/v1/%252e%252e/admin"),
        ("GET", "/v1/..%2fadmin"),
        ("GET", "/v1/..\\admin"),
        ("GET", "/v1/..;/admin"),
    ] {
        assert_eq!(
            error(&call(method, path)),
            "403 Target not allowed",
            "{method} {path}"
        );
    }
    assert_eq!(other.requests(), served);
}

/// Starts ringwall where `/etc/hosts` says what an attacker's name server would.
fn misled(site: &mut Site, hosts: &str, configuration: &str) -> Background {
    site.write("hosts", hosts);
    let path = site.write("ringwall.conf", configuration);
    let port = site.port("HTTP");
    let line = format!(
        "mount --bind {dir}/hosts /etc/hosts && exec {binary} -p {dir} -c {path} -g 'daemon off;'",
        dir = site.path().display(),
        binary = binary().display(),
        path = path.display(),
    );
    let running = Background::start(site.path(), "unshare", &["-rm", "sh", "-c", &line]);
    eventually("it listens", || is_listening(port).then_some(()));
    running
}

#[test]
fn a_name_that_leads_to_this_machine_is_refused_unless_that_is_permitted() {
    let origin = telling();
    let port = origin.port();
    for (permission, status) in [("", 403), ("private", 200)] {
        let mut site = Site::new();
        let configuration = http(&format!(
            "server {{ listen 127.0.0.1:@HTTP@; location = /proxy {{\n\
             json_relay http://rebound.example:1;\n\
             json_relay_allow rebound.example:{port} {permission}; }} }}"
        ));
        let hosts = "127.0.0.1 rebound.example\n::1 rebound.example\n";
        let _ringwall = misled(&mut site, hosts, &configuration);
        let hostname = format!("rebound.example:{port}");
        let call = json!({ "method": "GET", "path": "/", "hostname": hostname }).to_string();
        let mut client = Connection::plain(local(site.port("HTTP")));
        client.send(format!(
            "POST /proxy HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{call}",
            call.len()
        ));
        let response = client.response("POST");
        assert_eq!(response.status, status, "{}", response.text());
        if status == 403 {
            assert_eq!(error(&response), "403 Target not allowed");
            eventually("the log says why", || {
                let log = site.read("error.log");
                log.contains("leads to private addresses alone")
                    .then_some(())
            });
            assert_eq!(origin.connections(), 0);
        }
    }
}

#[test]
fn no_name_leads_to_a_private_address_in_whatever_form_it_comes() {
    let origin = telling();
    let port = origin.port();
    let forms = [
        "0.0.0.0",
        "127.8.9.10",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "fd00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];
    let names: Vec<String> = (0..forms.len())
        .map(|number| format!("name{number}.example"))
        .collect();
    let pairs = forms.iter().zip(&names);
    let hosts: String = pairs
        .map(|(form, name)| format!("{form} {name}\n"))
        .collect();
    let allowed: String = names
        .iter()
        .map(|name| format!("json_relay_allow {name}:{port};\n"))
        .collect();
    let mut site = Site::new();
    let configuration = http(&format!(
        "server {{ listen 127.0.0.1:@HTTP@; location = /proxy {{\n\
         json_relay http://127.0.0.1:1;\n{allowed} }} }}"
    ));
    let _ringwall = misled(&mut site, &hosts, &configuration);
    let mut client = Connection::plain(local(site.port("HTTP")));
    for (form, name) in forms.iter().zip(&names) {
        let hostname = format!("{name}:{port}");
        let call = json!({ "method": "GET", "path": "/", "hostname": hostname }).to_string();
        client.send(format!(
            "POST /proxy HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{call}",
            call.len()
        ));
        let response = client.response("POST");
        assert_eq!(error(&response), "403 Target not allowed", "{form}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_call_may_come_in_pieces_that_cut_characters() {
    let origin = telling();
    let ringwall = relay(&origin.address(), "");
    let body = json!({ "name": "정산€" }).to_string();
    let call = format!(r#"{{"method":"POST","path":"/","body":{body}}}"#);
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send("POST /proxy HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for byte in call.as_bytes() {
        client.send("1\r\n");
        client.send([*byte]);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    let response = client.response("POST");
    assert_eq!(response.status, 200);
    assert!(response.text().ends_with(&body), "{}", response.text());
}

/// A resolver for one program that answers well when it is first asked for a
/// name and otherwise as an attacker wants.
const REBINDING: &str = r#"
#include <netdb.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int asked, names;

// Opened at once: the threads that ask may open nothing later.
__attribute__((constructor)) static void begin(void) {
    names = open("asked", O_WRONLY | O_CREAT | O_APPEND, 0600);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    struct addrinfo *one = calloc(1, sizeof *one);
    struct sockaddr_in *address = calloc(1, sizeof *address);
    write(names, name, strlen(name));
    write(names, "\n", 1);
    address->sin_family = AF_INET;
    inet_pton(AF_INET, __sync_fetch_and_add(&asked, 1) == 0 ? "8.8.8.8" : "127.0.0.1", &address->sin_addr);
    one->ai_family = AF_INET;
    one->ai_socktype = SOCK_STREAM;
    one->ai_addr = (struct sockaddr *)address;
    one->ai_addrlen = sizeof *address;
    *found = one;
    return 0;
}

void freeaddrinfo(struct addrinfo *found) {
    free(found->ai_addr);
    free(found);
}
"#;

/// Tells by which of its addresses it was reached, and keeps connections as
/// long as it is asked to.
const TELLER: &str = r#"
import http.server
class Teller(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        text = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        # As a server that has waited long enough: without a word.
        self.close_connection = self.path == '/last'
http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Teller).serve_forever()
"#;

#[test]
fn a_name_that_changes_between_the_check_and_the_connection_leads_nowhere_else() {
    // 8.8.8.8 is this machine's in a network of the test's own.
    let mut site = Site::new();
    site.write("rebinding.c", REBINDING);
    let cc = ["-shared", "-fPIC", "-o", "rebinding.so", "rebinding.c"];
    tools::run(site.path(), "cc", &cc).expect_ok();
    site.write("teller.py", TELLER);
    let configuration = site.write(
        "ringwall.conf",
        &http(
            "server { listen 127.0.0.1:@HTTP@; location = /proxy {\n\
             json_relay http://rebound.example:8080; } }",
        ),
    );
    let port = site.port("HTTP");
    let call = |path: &str| {
        format!(
            "curl -s --retry 40 --retry-connrefused --retry-delay 1 -w ' %{{http_code}}\\n' \
             -d '{{\"method\":\"GET\",\"path\":\"{path}\"}}' http://127.0.0.1:{port}/proxy"
        )
    };
    let script = format!(
        "ip link set lo up && ip address add 8.8.8.8/32 dev lo\n\
         python3 teller.py 2>teller.log & teller=$!\n\
         LD_PRELOAD=$PWD/rebinding.so {binary} -p . -c {configuration} -g 'daemon off;' & ringwall=$!\n\
         trap 'kill $teller $ringwall' EXIT\n\
         until curl -s -o teller.first http://127.0.0.1:8080/; do kill -0 $teller || exit; done\n\
         {}\n{}\n{}\n",
        call("/one"),
        call("/last"),
        call("/two"),
        binary = binary().display(),
        configuration = configuration.display(),
    );
    let path = site.write("script.sh", &script);
    let path = path.display().to_string();
    let said = tools::run(site.path(), "unshare", &["-rmn", "sh", &path]).expect_ok();
    assert_eq!(
        said,
        // What was judged is what is connected to, as often as it is used;
        // what the name leads to afterwards is judged again.
        "8.8.8.8 200\n8.8.8.8 200\n{\"error\":\"Target not allowed\"} 403\n",
        "{}",
        site.read("error.log")
    );
    assert_eq!(site.read("asked"), "rebound.example\nrebound.example\n");
}

#[test]
fn a_call_is_what_its_bytes_say_once_and_in_bounds() {
    let origin = telling();
    let ringwall = relay(
        &origin.address(),
        &format!(
            "client_max_body_size 4m; json_relay_allow {} methods=GET,POST;",
            origin.address()
        ),
    );
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let call = |rest: &str| format!(r#"{{"method":"POST","path":"/",{rest}}}"#);
    for (text, what) in [
        // Who looked at the call before may have gone by the other one.
        (
            call(r#""hostname":"a.example","hostname":"b.example""#),
            "400 Invalid JSON",
        ),
        (call(r#""method":"GET""#), "400 Invalid JSON"),
        (call(r#""path":"/admin""#), "400 Invalid JSON"),
        (call(r#""body":"\ud800""#), "400 Invalid JSON"),
        (
            call(&format!(r#""headers":{}"#, deep(500_000))),
            "400 Invalid headers",
        ),
        (
            call(&format!(r#""headers":{{"X":"{}"}}"#, "x".repeat(70_000))),
            "400 Invalid headers",
        ),
        (
            format!(r#"{{"method":"GET","path":"/{}"}}"#, "x".repeat(20_000)),
            "400 Invalid path",
        ),
        // methods= is about what the target does, too.
        (
            call(r#""headers":{"X-HTTP-Method-Override":"DELETE"}"#),
            "403 Target not allowed",
        ),
        (
            call(r#""headers":{"x_http_method":"PUT"}"#),
            "403 Target not allowed",
        ),
    ] {
        let start: String = text.chars().take(80).collect();
        assert_eq!(error(&post_text(&ringwall, &text)), what, "{start}");
    }
    let mut client = Connection::plain(ringwall.address("HTTP"));
    let invalid = b"{\"method\":\"POST\",\"path\":\"/\",\"note\":\"\xff\"}";
    client.send(format!(
        "POST /proxy HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        invalid.len()
    ));
    client.send(invalid);
    assert_eq!(error(&client.response("POST")), "400 Invalid JSON");
    assert_eq!(origin.connections(), 0);
    // A body may be as deep as it likes: it is passed on and not read.
    let body = deep(500_000);
    let response = post_text(&ringwall, &call(&format!(r#""body":{body}"#)));
    assert_eq!(response.status, 200);
    assert!(response.text().ends_with(&format!("\n\n{body}")));
    // The last of a field's spellings is what goes out.
    let fields = r#""headers":{"content-type":"a/b","Content-Type":"c/d"}"#;
    let text = post_text(&ringwall, &call(fields)).text();
    assert!(
        text.contains("Content-Type: c/d") && !text.contains("a/b"),
        "{text}"
    );
}

#[test]
fn fields_that_are_not_the_callers_never_go_out() {
    let origin = telling();
    let ringwall = relay(
        &origin.address(),
        "proxy_set_header X-Client $ssl_client_s_dn;",
    );
    for headers in [
        json!({ "Host": "evil.example" }),
        json!({ "host": "evil.example" }),
        json!({ "Content-Length": "5" }),
        json!({ "Transfer-Encoding": "chunked" }),
        json!({ "TE": "trailers" }),
        json!({ "Connection": "X-Key" }),
        json!({ "Upgrade": "websocket" }),
        json!({ "Expect": "100-continue" }),
        json!({ "X-Client": "CN=admin" }),
        json!({ "x_client": "CN=admin" }),
        json!({ "X-Forwarded-For": "127.0.0.1" }),
    ] {
        let call = json!({ "method": "POST", "path": "/", "headers": headers, "body": "x" });
        let response = post(&ringwall, &call);
        assert!(
            error(&response).starts_with("400 Header not allowed"),
            "{headers}"
        );
    }
    for headers in [
        json!({ "X-A": "b\r\nHost: evil" }),
        json!({ "X-A": "b\nHost: evil" }),
        json!({ "X-A\r\nHost": "evil" }),
        json!({ "X-A:": "b" }),
        json!({ "X-A": "b\u{0}" }),
    ] {
        let call = json!({ "method": "GET", "path": "/", "headers": headers });
        assert_eq!(
            error(&post(&ringwall, &call)),
            "400 Invalid headers",
            "{headers}"
        );
    }
    for path in [
        "http://evil/",
        "x",
        "/a HTTP/1.1\r\nHost: evil\r\n\r\nGET /",
        "/a b",
        "*",
    ] {
        let call = json!({ "method": "GET", "path": path });
        assert_eq!(error(&post(&ringwall, &call)), "400 Invalid path", "{path}");
    }
    for method in [
        "GET /x HTTP/1.1\r\nA: b\r\n\r\nGET",
        "CONNECT",
        "TRACE",
        "G T",
    ] {
        let call = json!({ "method": method, "path": "/" });
        assert_eq!(
            error(&post(&ringwall, &call)),
            "400 Invalid method",
            "{method}"
        );
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn sizes_and_times_are_bounded() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.hang()
    });
    let ringwall = relay(
        &origin.address(),
        "client_max_body_size 1k; proxy_read_timeout 1s;",
    );
    let long = json!({ "method": "POST", "path": "/", "body": "x".repeat(2000) });
    assert_eq!(post(&ringwall, &long).status, 413);
    assert_eq!(origin.connections(), 0);
    let response = post(&ringwall, &json!({ "method": "POST", "path": "/" }));
    assert_eq!(error(&response), "502 Proxy request failed");
}

#[test]
fn a_connection_that_the_target_has_closed_is_replaced() {
    let origin = Origin::script(|peer| {
        peer.request()?;
        peer.send(&ok("once"))?;
        peer.finish()
    });
    let ringwall = relay(&origin.address(), "");
    for number in 1..=3 {
        let response = post(&ringwall, &json!({ "method": "GET", "path": "/" }));
        assert_eq!(response.text(), "once");
        eventually("the connection has ended", || {
            (origin.connections() >= number).then_some(())
        });
    }
}

#[test]
fn pages_call_through_the_relay_where_their_origin_may() {
    let origin = telling();
    let ringwall = relay(
        &origin.address(),
        "cors_allow_origin ~^http://localhost(:\\d+)?$;",
    );
    let mut client = Connection::plain(ringwall.address("HTTP"));
    client.send(
        "OPTIONS /proxy HTTP/1.1\r\nHost: a\r\nOrigin: http://localhost:5173\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n",
    );
    let response = client.response("OPTIONS");
    assert_eq!(response.status, 204);
    assert_eq!(
        response.header("access-control-allow-headers"),
        Some("content-type")
    );
    let body = r#"{"method":"GET","path":"/"}"#;
    client.send(format!(
        "POST /proxy HTTP/1.1\r\nHost: a\r\nOrigin: http://localhost:5173\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let response = client.response("POST");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("access-control-allow-origin"),
        Some("http://localhost:5173")
    );
}
