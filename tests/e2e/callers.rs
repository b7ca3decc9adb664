//! Other people's HTTP clients, each with what it does its own way: Node's
//! fetch (undici) with streams, compression, redirects, events and aborts, and
//! h2load over HTTP/1.1 with many connections at a time.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::support::eventually;
use crate::support::origin::{Origin, Request, ok};
use crate::support::ringwall::{Ringwall, Site, http};
use crate::support::tools;

fn start(origin: &Origin) -> Ringwall {
    Site::new().start(&http(&format!(
        "gzip on; gzip_types text/plain; gzip_min_length 100;
         server {{ listen 127.0.0.1:@HTTP@; location / {{ proxy_pass {0}; }}
         location /streamed {{ proxy_request_buffering off; proxy_pass {0}; }}
         location /old {{ return 308 /new; }} }}",
        origin.url()
    )))
}

fn lengths_of(request: &Request) -> Vec<u8> {
    let length = request.header("content-length").unwrap_or("-");
    let coding = request.header("transfer-encoding").unwrap_or("-");
    ok(&format!("{length} {coding} {}", request.body.len()))
}

#[test]
fn nodes_fetch_gets_what_it_asks_for() {
    let (go, told) = channel();
    let (go, told) = (Mutex::new(go), Mutex::new(told));
    let origin = Origin::script(move |peer| {
        loop {
            let request = peer.request()?;
            match request.target() {
                "/events" => {
                    peer.send(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                          Transfer-Encoding: chunked\r\n\r\nd\r\ndata: first\n\n\r\n",
                    )?;
                    // The second only when the client has told that it has the
                    // first. An error means that the test has ended.
                    let _ = told.lock().expect("not poisoned").recv();
                    peer.send(b"e\r\ndata: second\n\n\r\n0\r\n\r\n")?;
                }
                "/go" => {
                    let _ = go.lock().expect("not poisoned").send(());
                    peer.send(&ok("gone"))?;
                }
                "/text" => peer.send(&ok(&"words ".repeat(1000)))?,
                "/endless" => {
                    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome")?;
                    return peer.idle();
                }
                _ => peer.send(&lengths_of(&request))?,
            }
        }
    });
    let mut ringwall = start(&origin);
    let script = ringwall.site.write(
        "client.mjs",
        r#"
const base = 'http://127.0.0.1:@HTTP@';
const text = async (path, init) => (await fetch(base + path, init)).text();
const say = words => console.log(words);

const coded = await fetch(base + '/text');
say(`${coded.headers.get('content-encoding')} ${(await coded.text()).length}`);

const stream = () => new ReadableStream({
  start(controller) {
    for (let n = 0; n < 100; n++) controller.enqueue(new Uint8Array(1000));
    controller.close();
  },
});
const upload = path => text(path, { method: 'POST', body: stream(), duplex: 'half' });
say(await upload('/streamed'));
say(await text('/plain', { method: 'PUT', body: 'x'.repeat(5000) }));

const moved = await fetch(base + '/old', { method: 'POST', body: 'kept' });
say(`${moved.redirected} ${await moved.text()}`);

const many = await Promise.all(Array.from({ length: 200 }, (_, n) =>
  text(`/${n}`, { method: 'POST', body: 'y'.repeat(n) })));
say(many.every((answer, n) => answer === `${n} - ${n}`));

const events = (await fetch(base + '/events')).body
  .pipeThrough(new TextDecoderStream()).getReader();
say(JSON.stringify((await events.read()).value));
await text('/go');
say(JSON.stringify((await events.read()).value));
say((await events.read()).done);

const abort = new AbortController();
const endless = await fetch(base + '/endless', { signal: abort.signal });
await endless.body.getReader().read();
abort.abort();
say(await text('/after'));
process.exit(0);
"#,
    );
    let script = script.to_str().expect("UTF-8");
    let said = tools::run(ringwall.site.path(), "node", &[script]).expect_ok();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "gzip 6000",
            "- chunked 100000",
            "5000 - 5000",
            "true 4 - 4",
            "true",
            r#""data: first\n\n""#,
            r#""data: second\n\n""#,
            "true",
            "- - 0",
        ]
    );
    eventually("the aborted response is no longer waited for", || {
        ringwall
            .access_log()
            .contains("\"GET /endless ")
            .then_some(())
    });
}

#[test]
fn h2load_over_http_1_1_gets_an_answer_to_each_request() {
    let origin = Origin::hello();
    let mut ringwall = start(&origin);
    let url = ringwall.site.fill_in("http://127.0.0.1:@HTTP@/");
    let said = tools::run(
        ringwall.site.path(),
        "h2load",
        &["--h1", "-n", "2000", "-c", "20", "-m", "1", &url],
    )
    .expect_ok();
    assert!(
        said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{said}"
    );
    assert_eq!(origin.requests(), 2000);
}
