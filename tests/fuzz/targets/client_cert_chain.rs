#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringwall_fuzz::client_cert_chain(input));
