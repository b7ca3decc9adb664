//! What a request costs before anything is decided: parsing a small and a large
//! head, and decoding a chunked body.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use ringwall::http::h1::chunked::ChunkedDecoder;
use ringwall::http::h1::encode::{CHUNK_END, LAST_CHUNK, chunk_head};
use ringwall::http::h1::framing;
use ringwall::http::h1::parse::{HeadLimits, parse_request};
use ringwall::http::head::RequestHead;

const LIMITS: HeadLimits = HeadLimits {
    line: 8 * 1024,
    total: 32 * 1024,
    fields: 1000,
};

const CURL: &[u8] = b"GET / HTTP/1.1\r\n\
    Host: test.woorifisa.site\r\n\
    User-Agent: curl/8.5.0\r\n\
    Accept: */*\r\n\r\n";

const BROWSER: &[u8] = b"GET /assets/js/application-4f2c91d07b.js?v=20261120&lang=en-GB HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.org/a/rather/long/path/to/a/page?with=some&query=parameters\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8,ko;q=0.7\r\n\
    Cookie: session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c; theme=dark; consent=1\r\n\
    If-None-Match: \"4f2c91d07b\"\r\n\
    If-Modified-Since: Thu, 19 Nov 2026 18:00:00 GMT\r\n\
    X-Requested-With: XMLHttpRequest\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request head");
    for (name, bytes) in [("curl", CURL), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            let mut head = RequestHead::default();
            bencher.iter(|| {
                let status = parse_request(black_box(bytes), &LIMITS, &mut head);
                black_box((status, framing::of_request(&head, bytes)))
            });
        });
    }
    group.finish();
}

fn chunked(criterion: &mut Criterion) {
    const BODY: usize = 1024 * 1024;
    let mut group = criterion.benchmark_group("chunked decode, 1 MiB");
    group.throughput(Throughput::Bytes(BODY as u64));
    for size in [64, 4096, 65_536] {
        let mut wire = Vec::new();
        for _ in 0..BODY / size {
            let (head, used) = chunk_head(size);
            wire.extend_from_slice(&head[..used]);
            wire.resize(wire.len() + size, b'x');
            wire.extend_from_slice(CHUNK_END);
        }
        wire.extend_from_slice(LAST_CHUNK);
        group.bench_function(format!("chunks of {size}"), |bencher| {
            bencher.iter_batched_ref(
                || wire.clone(),
                |wire| {
                    let mut decoder = ChunkedDecoder::new();
                    // As it comes off the network: 16 KiB at a time.
                    for piece in wire.chunks_mut(16 * 1024) {
                        let _ = black_box(decoder.decode(piece));
                    }
                    assert!(decoder.is_done());
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, heads, chunked);
criterion_main!(benches);
