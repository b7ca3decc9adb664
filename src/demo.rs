//! `ringwall demo`: a mutual-TLS gateway to try out, with nothing installed.
//!
//! Makes a throw-away CA, server and client certificates and an `nginx.conf`
//! in a temporary folder, and serves them: HTTPS in front, an embedded
//! backend (a second `server` block) behind.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::config::LoadOptions;
use crate::runtime::process;

/// Serves the demonstration on this port (another one if it is taken) until
/// it is interrupted, then removes what it made.
pub fn run(port: u16) -> ExitCode {
    let folder = std::env::temp_dir().join(format!("ringwall-demo-{}", std::process::id()));
    let code = match prepare(&folder, port) {
        Ok(options) => process::run(&options),
        Err(error) => {
            eprintln!(
                "ringwall: [emerg] cannot prepare the demonstration in {}: {error}",
                folder.display()
            );
            ExitCode::FAILURE
        }
    };
    let _ = fs::remove_dir_all(&folder);
    code
}

fn prepare(folder: &Path, port: u16) -> Result<LoadOptions, Box<dyn Error>> {
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    make_certificates(folder)?;
    let port = free_port(port)?;
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration(folder, port))?;
    print_instructions(folder, &file, port);
    Ok(LoadOptions::new(file, folder))
}

/// `wanted`, or one that the system picks.
fn free_port(wanted: u16) -> io::Result<u16> {
    let probe = TcpListener::bind(("127.0.0.1", wanted))
        .or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(probe.local_addr()?.port())
}

fn make_certificates(folder: &Path) -> Result<(), Box<dyn Error>> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name
        .push(DnType::CommonName, "ringwall demo CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    write(folder, "ca.crt", &ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(ca, ca_key);
    let leaves = [
        ("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", "demo-client", ExtendedKeyUsagePurpose::ClientAuth),
    ];
    for (file, name, usage) in leaves {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec![name.to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.extended_key_usages = vec![usage];
        write(
            folder,
            &format!("{file}.crt"),
            &leaf.signed_by(&key, &issuer)?.pem(),
        )?;
        write(folder, &format!("{file}.key"), &key.serialize_pem())?;
    }
    Ok(())
}

/// Readable by nobody else: some of these are keys.
fn write(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let path: PathBuf = folder.join(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        r#"# Written by `ringwall demo`.
worker_processes auto;
daemon off;
pid {folder}/ringwall.pid;
error_log stderr warn;

events {{
    worker_connections 1024;
}}

http {{
    access_log {folder}/access.log;
    ssl_session_cache shared:SSL:10m;
    ssl_session_timeout 10m;

    # The gateway: nobody gets past it without a certificate of the demo CA.
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name localhost;

        ssl_certificate        server.crt;
        ssl_certificate_key    server.key;
        ssl_client_certificate ca.crt;
        ssl_verify_client      on;
        ssl_protocols          TLSv1.2 TLSv1.3;

        location / {{
            proxy_pass http://unix:{folder}/backend.sock;
            proxy_set_header Host              $host;
            proxy_set_header X-Real-IP         $remote_addr;
            proxy_set_header X-Forwarded-For   $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-SSL-Client-S-DN $ssl_client_s_dn;
        }}
    }}

    # The backend, embedded: it answers with what the gateway told it.
    server {{
        listen unix:{folder}/backend.sock;
        access_log off;
        location / {{
            return 200 "Hello, $http_x_ssl_client_s_dn. You asked for $request_uri over $http_x_forwarded_proto.\n";
        }}
    }}
}}
"#
    )
}

fn print_instructions(folder: &Path, file: &Path, port: u16) {
    let dir = folder.display();
    let _ = write!(
        io::stdout(),
        "\
ringwall demo: mutual TLS on https://localhost:{port}/
configuration: {}

This works:
  curl --cacert {dir}/ca.crt --cert {dir}/client.crt --key {dir}/client.key https://localhost:{port}/

This must fail, for it has no client certificate:
  curl --cacert {dir}/ca.crt https://localhost:{port}/

Reload the configuration and the certificates without losing a connection:
  kill -HUP $(cat {dir}/ringwall.pid)

Load it (wrk cannot present a certificate: set \"ssl_verify_client off;\" and reload first):
  wrk -c 64 -d 10 https://localhost:{port}/

Ctrl-C ends it and removes the folder.
",
        file.display(),
    );
}
