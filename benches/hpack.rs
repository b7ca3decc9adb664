//! What the fields of a request and of a response cost in HTTP/2: decoded the
//! first time, when all are literals, and again, when they are in the table.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

use ringwall::http::h2::hpack::{Decoder, Encoder};

/// As a browser writes its first request's fields, Huffman-coded, and again.
const BROWSER: [&str; 2] = [
    "\
    8287418cf1e3c2e5f23a6ba0ab9ec9bf44aa60684152863a2181d75d0620d263d4b352888f86403b1afd11fe77\
    804013810881f140ea9a02d4b62bbf40874148b1275ad1ffa3fe6f4f61e935b4ff3f7de0fe42d03f9fa53f9d27\
    4c10ff976c1d527f3f7de0fe44d7f3408b4148b1275ad1ad49e3350582ff01408d4148b1275ad1ad5d034ca7b2\
    9f87fe739aab7cff3f7aced07f66a281b0dae053fafc087ed4ce6aadf2a7979c89c6bfb521aeba0bc8b1e63258\
    6d975765c53facd8f7e8cff4a506ea5531149d4ffda97a7b0f49580b405c0b817029b8728ec330db2eaecb9f53\
    c8497ca589d34d1f43aeba0c41a4c7a98f33a69a3fdf9a68fa1d75d0620d263d4c79a68fbed00177fe8d48e62b\
    03ee697e8d48e62b1e0b1d7f46a4731581d754df5f2c7cfdf6800bbd408a4148b4a549275906497f8840e92ac7\
    b0d31aaf408a4148b4a549275a93c85f86a87dcd30d25f408a4148b4a549275a42a13f8690e4b692d49f73ba9d\
    29ad171863c78f0b97c8e9ae82ae7b26606c5834ce5b18a0f54cc5634cec24ec0d8ac7317fcf064cf020f497e3\
    b5a5b3d4158ec1d25496c47f50929bd9abfa5242cb40d25fa523b3e94f684c9f519a2d4b62bbf45abefb4005df\
    fa90bf7da002ef7d753fdf6800bbbf60ff014150831ea80beb2cf1e221b51b2e4e1ef20749b223255b5b25ec8e\
    64eb5fe71bd95f5cbeb2fb9396436a364f3a3a68069dfcd9d57faf8c86f068e9c29fddd91cc9d6bee3c4d4db71\
    3f464a80bee968cde7c6dcbbb417366c22d9bda97c57a0b96565cd7abab9eb2f188726c423c364fb51339692c1\
    20ecebf6a10f520b52600f",
    "8287cbcac9c8c7c6c5c4c3c2c1c0bfbe",
];

/// The same of curl.
const CURL: [&str; 2] = [
    "8287418d495095fc1cf61a53206ba0c92f847a8825b650c3cbb6b83f5383f963e7",
    "8287c084bfbe",
];

const SMALL: &[(&str, &str)] = &[
    ("server", "ringwall"),
    ("date", "Sat, 28 Nov 2026 16:00:00 GMT"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-length", "1234"),
];

const APPLICATION: &[(&str, &str)] = &[
    ("server", "ringwall"),
    ("date", "Sat, 28 Nov 2026 16:00:00 GMT"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-length", "1234"),
    ("cache-control", "no-store, max-age=0"),
    ("etag", "\"4f2c91d07b\""),
    ("last-modified", "Thu, 19 Nov 2026 18:00:00 GMT"),
    ("vary", "accept-encoding"),
    ("x-frame-options", "SAMEORIGIN"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    (
        "strict-transport-security",
        "max-age=31536000; includeSubDomains",
    ),
    ("x-request-id", "2f1c7a0e9b1d4e43a5e0d6b8c7f90123"),
    (
        "set-cookie",
        "sid=abcdef0123456789; Path=/; HttpOnly; Secure",
    ),
    (
        "content-security-policy",
        "default-src 'self'; img-src * data:",
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) {
    let outcome = decoder.decode(black_box(block), 65536, |name, value, _| {
        black_box((name, value));
    });
    outcome.expect("the block is right");
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode a request's fields");
    for (name, blocks) in [("curl", CURL), ("browser", BROWSER)] {
        let [first, again] = blocks.map(bytes);
        group.bench_function(format!("{name}, first"), |bencher| {
            let new = || Decoder::new(4096);
            bencher.iter_batched_ref(
                new,
                |decoder| decode(decoder, &first),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("{name}, again"), |bencher| {
            let mut decoder = Decoder::new(4096);
            decode(&mut decoder, &first);
            bencher.iter(|| decode(&mut decoder, &again));
        });
    }
    group.finish();
}

fn encode(encoder: &mut Encoder, fields: &[(&str, &str)], out: &mut Vec<u8>) {
    out.clear();
    encoder.begin(out);
    encoder.status(200, out);
    for (name, value) in black_box(fields) {
        encoder.field(name.as_bytes(), value.as_bytes(), out);
    }
    black_box(out);
}

fn responses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode a response's fields");
    for (name, fields) in [("small", SMALL), ("application", APPLICATION)] {
        let mut out = Vec::with_capacity(4096);
        group.bench_function(format!("{name}, first"), |bencher| {
            bencher.iter(|| encode(&mut Encoder::new(), fields, &mut out));
        });
        group.bench_function(format!("{name}, again"), |bencher| {
            let mut encoder = Encoder::new();
            bencher.iter(|| encode(&mut encoder, fields, &mut out));
        });
    }
    group.finish();
}

criterion_group!(benches, requests, responses);
criterion_main!(benches);
