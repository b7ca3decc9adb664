//! Every fuzz target, on the inputs that it starts from: what fuzzing has found
//! once is tried on every run of the tests, on stable and without libFuzzer.

use std::fs;
use std::path::Path;

#[path = "fuzz/src/lib.rs"]
mod targets;

/// Runs a target on every file of a folder, and on each cut short.
fn on_every_file(folder: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = 0;
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        let bytes = fs::read(&path).expect("it can be read");
        // Names the input when the target panics: the harness shows it then.
        println!("{}, {} bytes", path.display(), bytes.len());
        for end in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
            target(&bytes[..end]);
        }
        target(&bytes);
        files += 1;
    }
    assert!(files > 0, "no input in {}", folder.display());
}

#[test]
fn a_chunked_body_means_the_same_however_it_is_split() {
    on_every_file(
        "tests/fuzz/seeds/chunked_any_split",
        targets::chunked_any_split,
    );
}

#[test]
fn a_chain_of_certificates_proves_what_the_ca_has_signed_and_nothing_else() {
    on_every_file(
        "tests/fuzz/seeds/client_cert_chain",
        targets::client_cert_chain,
    );
}

#[test]
fn a_client_hello_names_the_same_host_as_to_rustls() {
    on_every_file("tests/fuzz/seeds/client_hello", targets::client_hello);
}

#[test]
fn a_configuration_is_built_or_refused_with_its_place() {
    on_every_file("tests/fuzz/seeds/config_file", targets::config_file);
    on_every_file("config", targets::config_file);
}

#[test]
fn frames_are_counted_the_same_however_cut_and_requests_agree_with_http1() {
    on_every_file("tests/fuzz/seeds/h2_frames", targets::h2_frames);
}

#[test]
fn a_block_of_fields_is_the_same_when_it_is_encoded_again() {
    on_every_file("tests/fuzz/seeds/hpack", targets::hpack);
}

#[test]
fn framing_agrees_with_a_slow_reading_of_the_rules() {
    on_every_file("tests/fuzz/seeds/h1_framing", targets::h1_framing);
}

#[test]
fn a_request_head_keeps_its_promises() {
    on_every_file("tests/fuzz/seeds/h1_request_head", targets::h1_request_head);
}

#[test]
fn a_header_in_front_of_a_connection_is_read_the_same_however_it_is_cut() {
    on_every_file("tests/fuzz/seeds/proxy_protocol", targets::proxy_protocol);
}

#[test]
fn a_ticket_opens_only_as_it_was_sealed() {
    on_every_file("tests/fuzz/seeds/ticket", targets::ticket);
}

#[test]
fn a_record_opens_only_as_it_was_sealed() {
    on_every_file("tests/fuzz/seeds/tls_record", targets::tls_record);
}

#[test]
fn no_name_in_a_certificate_ends_its_field() {
    on_every_file("tests/fuzz/seeds/x509_identity", targets::x509_identity);
}
