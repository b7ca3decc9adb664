//! What holds before a location is known: buffers and timeouts of request heads.

use std::time::Duration;

use super::values::{
    flag, invalid_value, milliseconds, number, refuse, refuse_directive, set, size, small_number,
};
use super::{Builder, Result};
use crate::config::model::{ConnectionLimits, Http2};
use crate::config::syntax::Directive;
use crate::config::units;

/// Fields of a head that there is room for; see `http::h1::parse`.
const MAX_FIELDS: usize = 1024;

/// As written in `http` or `server`.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection {
    pub(super) client_header_timeout: Option<Duration>,
    pub(super) client_header_buffer_size: Option<usize>,
    pub(super) large_client_header_buffers: Option<(usize, usize)>,
    pub(super) max_headers: Option<usize>,
    pub(super) underscores_in_headers: Option<bool>,
    pub(super) ignore_invalid_headers: Option<bool>,
    pub(super) merge_slashes: Option<bool>,
    pub(super) http2: Option<bool>,
    pub(super) http2_max_concurrent_streams: Option<u32>,
    pub(super) http2_body_preread_size: Option<usize>,
}

/// What Nginx says of directives that it no longer has: the one that took their
/// place, if there is one.
const OBSOLETE: &[(&[u8], Option<&str>)] = &[
    (b"http2_recv_timeout", Some("client_header_timeout")),
    (b"http2_idle_timeout", Some("keepalive_timeout")),
    (b"http2_max_requests", Some("keepalive_requests")),
    (b"http2_max_field_size", Some("large_client_header_buffers")),
    (
        b"http2_max_header_size",
        Some("large_client_header_buffers"),
    ),
    (b"http2_push", None),
    (b"http2_push_preload", None),
    (b"http2_max_concurrent_pushes", None),
];

impl Connection {
    /// Takes a directive; `false` when it is not one of these.
    pub(super) fn apply(&mut self, builder: &mut Builder<'_>, d: &Directive) -> Result<bool> {
        match &*d.name.value {
            b"client_header_timeout" => set(&mut self.client_header_timeout, d, milliseconds(d)?)?,
            b"client_header_buffer_size" => {
                let value = size(d, 0)?;
                if value == 0 {
                    return Err(invalid_value(d));
                }
                set(&mut self.client_header_buffer_size, d, value)?;
            }
            b"large_client_header_buffers" => {
                let count = number(d)?.try_into().map_err(|_| invalid_value(d))?;
                let value = units::size(d.arg(1)).ok_or_else(|| invalid_value(d))?;
                if count == 0 || value == 0 {
                    return Err(invalid_value(d));
                }
                set(&mut self.large_client_header_buffers, d, (count, value))?;
            }
            b"max_headers" => {
                let value = small_number(d)?;
                if !(1..=MAX_FIELDS).contains(&value) {
                    let what = format!("takes 1 to {MAX_FIELDS} fields");
                    return Err(refuse_directive(d, &what));
                }
                set(&mut self.max_headers, d, value)?;
            }
            b"underscores_in_headers" => set(&mut self.underscores_in_headers, d, flag(d)?)?,
            b"ignore_invalid_headers" => set(&mut self.ignore_invalid_headers, d, flag(d)?)?,
            b"merge_slashes" => set(&mut self.merge_slashes, d, flag(d)?)?,
            b"http2" => set(&mut self.http2, d, flag(d)?)?,
            b"http2_max_concurrent_streams" => {
                let value = number(d)?;
                let value = u32::try_from(value).ok().filter(|&value| value > 0);
                let value = value.ok_or_else(|| invalid_value(d))?;
                set(&mut self.http2_max_concurrent_streams, d, value)?;
            }
            b"http2_body_preread_size" => {
                let value = size(d, 0)?;
                // The largest window that there is (RFC 9113 §6.9.1).
                if value > i32::MAX as usize {
                    return Err(refuse(
                        d,
                        "the maximum body preread buffer size is 2147483647",
                    ));
                }
                set(&mut self.http2_body_preread_size, d, value)?;
            }
            name => {
                let known = OBSOLETE.iter().find(|(obsolete, _)| *obsolete == name);
                let Some((name, instead)) = known else {
                    return Ok(false);
                };
                let name = String::from_utf8_lossy(name);
                builder.warn(
                    &d.position,
                    match instead {
                        Some(instead) => format!(
                            "the \"{name}\" directive is obsolete, \
                             use the \"{instead}\" directive instead"
                        ),
                        None => format!("the \"{name}\" directive is obsolete, ignored"),
                    },
                );
            }
        }
        Ok(true)
    }

    pub(super) fn inherit(&mut self, outer: &Self) {
        super::scope::inherit!(
            self, outer;
            client_header_timeout, client_header_buffer_size, large_client_header_buffers,
            max_headers, underscores_in_headers, ignore_invalid_headers, merge_slashes, http2,
            http2_max_concurrent_streams, http2_body_preread_size
        );
    }

    /// With Nginx's defaults.
    pub(super) fn finish(&self) -> ConnectionLimits {
        ConnectionLimits {
            client_header_timeout: self
                .client_header_timeout
                .unwrap_or(Duration::from_secs(60)),
            client_header_buffer_size: self.client_header_buffer_size.unwrap_or(1024),
            large_client_header_buffers: self.large_client_header_buffers.unwrap_or((4, 8192)),
            max_headers: self.max_headers.unwrap_or(1000),
            underscores_in_headers: self.underscores_in_headers.unwrap_or(false),
            ignore_invalid_headers: self.ignore_invalid_headers.unwrap_or(true),
            merge_slashes: self.merge_slashes.unwrap_or(true),
            http2: Http2 {
                enabled: self.http2.unwrap_or(false),
                max_concurrent_streams: self.http2_max_concurrent_streams.unwrap_or(128),
                body_preread_size: self.http2_body_preread_size.unwrap_or(64 << 10),
            },
        }
    }
}
