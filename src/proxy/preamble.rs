//! The PROXY protocol's header, which comes before TLS and before HTTP.

use std::fmt;
use std::time::Duration;

use crate::net::buffers::{Buffer, Class};
use crate::net::deadlines::Deadline;
use crate::net::proxy_protocol::{self, Header, Progress};
use crate::net::socket::Socket;
use crate::telemetry::error_log::{Level, Text};

/// Reads the header, and what has come behind it, within `timeout` from now.
///
/// # Errors
/// What to log; the connection is to be closed without a word, since what it
/// carries is not known. Cancelling it means the same.
pub(super) async fn read(
    socket: &mut Socket,
    timeout: Duration,
) -> Result<(Header, Vec<u8>), (Level, String)> {
    let deadline = Deadline::new();
    deadline.arm(timeout);
    let mut buffer = Buffer::take(Class::Large);
    let mut filled = 0;
    loop {
        // Never empty: a header is shorter than the buffer.
        let range = filled..buffer.len();
        let Ok((result, back)) = deadline.run(socket.receiver.receive(buffer, range)).await else {
            let message = "client timed out (110: Connection timed out)";
            return Err((Level::Info, message.into()));
        };
        buffer = back;
        match result {
            Ok(0) => return Err((Level::Info, "client prematurely closed connection".into())),
            Ok(read) => filled += read,
            Err(error) => return Err((Level::Info, format!("recv() failed ({error})"))),
        }
        let bytes = buffer.get(..filled).unwrap_or_default();
        match proxy_protocol::parse(bytes) {
            Ok(Progress::Partial) => {}
            Ok(Progress::Complete(header, length)) => {
                return Ok((header, bytes.get(length..).unwrap_or_default().to_vec()));
            }
            Err(error) => {
                let message = format!("broken header: \"{}\", {error}", FirstLine(bytes));
                return Err((Level::Error, message));
            }
        }
    }
}

/// Enough of it to tell who knocked at the wrong door.
struct FirstLine<'a>(&'a [u8]);

impl fmt::Display for FirstLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ENOUGH: usize = 107;
        let line = self.0.split(|byte| matches!(byte, b'\r' | b'\n')).next();
        let line = line.unwrap_or_default();
        Text(line.get(..ENOUGH).unwrap_or(line)).fmt(f)
    }
}
