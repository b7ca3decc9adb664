//! Debian's Nginx beside ringwall, with the same server blocks: what it says
//! is what is right.

use std::net::SocketAddr;
use std::path::Path;

use super::ringwall::{Site, is_listening};
use super::tools::Background;
use super::{eventually, local};

/// A running Nginx in a [`Site`]'s directory.
pub(crate) struct Nginx {
    address: SocketAddr,
    _process: Background,
}

impl Nginx {
    /// Starts it, in one process, with this content of its `http` block, which
    /// listens at `@NGINX@`; its error log is `nginx.log`.
    ///
    /// # Panics
    /// When it does not come up.
    pub(crate) fn start(site: &mut Site, http: &str) -> Self {
        let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path @DIR@/{name};\n"))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid @DIR@/nginx.pid;\n\
             error_log @DIR@/nginx.log info; events {{ }}\n\
             http {{ access_log off; {folders} {http} }}"
        );
        let path = site.write("nginx.conf", &configuration);
        let port = site.port("NGINX");
        let program = if Path::new("/usr/sbin/nginx").exists() {
            "/usr/sbin/nginx"
        } else {
            "nginx"
        };
        let prefix = site.path().display().to_string();
        let path = path.display().to_string();
        let process = Background::start(site.path(), program, &["-p", &prefix, "-c", &path]);
        eventually("nginx listens", || is_listening(port).then_some(()));
        Self {
            address: local(port),
            _process: process,
        }
    }

    /// 127.0.0.1 at its port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
