//! The sink that compresses.

use std::time::Duration;

use crate::config::GzipProxied;
use crate::http::date::parse_date;
use crate::http::headers::list_members;
use crate::net::buffers::{Gaps, Segments};
use crate::net::socket::Behind;
use crate::proxy::exchange::{self, BodySize, OwnFields, Piece, ResponseSink};
use crate::proxy::transport::TransportError;

use super::coder::{Coder, Step};
use super::{Client, Plan};

/// A sink in front of another. Without a plan it is not there.
#[derive(Debug)]
pub(crate) struct Filtered<'s, S> {
    inner: &'s mut S,
    gzip: Option<Box<Gzipping>>,
    /// Whether Content-Encoding says so, also in the answer to HEAD.
    is_compressed: bool,
    /// Of a whole body.
    ratio: u64,
}

#[derive(Debug)]
struct Gzipping {
    plan: Box<Plan>,
    seen: Seen,
    /// Once the head has been ended, if the body is to be compressed.
    coder: Option<Coder>,
}

/// What the fields of the response said that matters.
#[derive(Debug, Default)]
struct Seen {
    content_type: Vec<u8>,
    is_coded: bool,
    /// Held back until it is known whether it becomes a weak one.
    etag: Option<Vec<u8>>,
    /// Held back: parts of a compressed response cannot be had.
    accepts_ranges: bool,
    has_last_modified: bool,
    /// Unix time, seconds; `None` inside for a date that is none.
    expires: Option<Option<i64>>,
    has_cache_control: bool,
    /// Vary names Accept-Encoding already.
    varies: bool,
    no_cache: bool,
    no_store: bool,
    private: bool,
}

impl<'s, S: ResponseSink> Filtered<'s, S> {
    pub(crate) fn new(inner: &'s mut S) -> Self {
        Self {
            inner,
            gzip: None,
            is_compressed: false,
            ratio: 0,
        }
    }

    /// Puts bytes through the compressor and what comes out into the sink.
    async fn code(&mut self, mut data: &[u8], step: Step) -> Result<(), TransportError> {
        let Some(coder) = self.gzip.as_mut().and_then(|gzip| gzip.coder.as_mut()) else {
            return Ok(());
        };
        loop {
            let failed = || std::io::Error::other("the body cannot be compressed");
            let (piece, is_complete) = coder
                .step(&mut data, step)
                .ok_or_else(|| TransportError::Io(failed()))?;
            self.inner.write(piece).await?;
            if is_complete {
                return Ok(());
            }
        }
    }

    fn is_coding(&self) -> bool {
        self.gzip.as_ref().is_some_and(|gzip| gzip.coder.is_some())
    }
}

impl Gzipping {
    /// Notes what a field says. Whether it is held back.
    fn see(&mut self, name: &[u8], value: &[u8]) -> bool {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let seen = &mut self.seen;
        match name.len() {
            4 if is("Vary") => {
                seen.varies |= value.eq_ignore_ascii_case(b"Accept-Encoding");
            }
            4 if is("ETag") => {
                seen.etag = Some(value.to_vec());
                return true;
            }
            7 if is("Expires") => seen.expires = Some(parse_date(value)),
            12 if is("Content-Type") => seen.content_type = value.to_vec(),
            13 if is("Accept-Ranges") && value == b"bytes" => {
                seen.accepts_ranges = true;
                return true;
            }
            13 if is("Last-Modified") => seen.has_last_modified = self.plan.is_forwarded,
            13 if is("Cache-Control") => {
                seen.has_cache_control = true;
                let says = |word: &str| {
                    list_members(value).any(|member| member.eq_ignore_ascii_case(word.as_bytes()))
                };
                seen.no_cache |= says("no-cache");
                seen.no_store |= says("no-store");
                seen.private |= says("private");
            }
            16 if is("Content-Encoding") => seen.is_coded |= !value.is_empty(),
            _ => {}
        }
        false
    }

    /// Whether a response like this one is compressed for those who take it.
    fn is_fit(&self, size: BodySize) -> bool {
        let plan = &self.plan;
        let Some(coding) = &plan.gzip.coding else {
            return false;
        };
        let is_long_enough = match size {
            BodySize::None => false,
            BodySize::Known(length) | BodySize::Announced(length) => length >= coding.min_length,
            BodySize::Unknown => true,
        };
        matches!(plan.status, 200 | 403 | 404)
            && !self.seen.is_coded
            && is_long_enough
            && coding.types.contains(&self.seen.content_type)
    }

    fn client_takes_it(&self) -> bool {
        match self.plan.client {
            Client::Refuses => false,
            Client::Accepts => true,
            Client::AsProxy(rules) => self.proxy_takes_it(rules),
        }
    }

    /// `gzip_proxied`: what no cache on the way will keep may be compressed.
    fn proxy_takes_it(&self, rules: GzipProxied) -> bool {
        let seen = &self.seen;
        if let Some(expires) = seen.expires {
            let now = i64::try_from(self.plan.now).unwrap_or(i64::MAX);
            return rules.expired && expires.is_some_and(|expires| expires < now);
        }
        if seen.has_cache_control {
            return (rules.no_cache && seen.no_cache)
                || (rules.no_store && seen.no_store)
                || (rules.private && seen.private);
        }
        let is_told_apart = (rules.no_last_modified && seen.has_last_modified)
            || (rules.no_etag && seen.etag.is_some());
        !is_told_apart
    }
}

/// An ETag of the same content in other bytes: what it begins with and the rest;
/// `None` of one that is no ETag.
pub(crate) fn weak(etag: &[u8]) -> Option<(&'static str, &[u8])> {
    match etag {
        [b'W', b'/', ..] => Some(("", etag)),
        [b'"', ..] => Some(("W/", etag)),
        _ => None,
    }
}

impl<S: ResponseSink> ResponseSink for Filtered<'_, S> {
    fn compress(&mut self, plan: Box<Plan>) {
        self.gzip = Some(Box::new(Gzipping {
            plan,
            seen: Seen::default(),
            coder: None,
        }));
    }

    async fn interim(&mut self, status: u16) -> Result<(), TransportError> {
        self.inner.interim(status).await
    }

    fn start(&mut self, status: u16, reason: Option<&[u8]>, send_timeout: Duration) {
        self.gzip = None;
        self.is_compressed = false;
        self.ratio = 0;
        self.inner.start(status, reason, send_timeout);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        if let Some(gzip) = &mut self.gzip
            && gzip.see(name, value)
        {
            return;
        }
        self.inner.field(name, value);
    }

    fn end_head(&mut self, size: BodySize) {
        let Some(gzip) = &mut self.gzip else {
            return self.inner.end_head(size);
        };
        let is_fit = gzip.is_fit(size);
        let codes = is_fit && gzip.client_takes_it();
        if let Some(etag) = &gzip.seen.etag {
            match (codes, weak(etag)) {
                (false, _) => self.inner.field(b"ETag", etag),
                (true, Some(("", etag))) => self.inner.field(b"ETag", etag),
                (true, Some((mark, etag))) => {
                    self.inner.field(b"ETag", &[mark.as_bytes(), etag].concat());
                }
                (true, None) => {}
            }
        }
        if gzip.seen.accepts_ranges && !codes {
            self.inner.field(b"Accept-Ranges", b"bytes");
        }
        if is_fit && gzip.plan.gzip.vary && !gzip.seen.varies {
            self.inner.field(b"Vary", b"Accept-Encoding");
        }
        if !codes {
            self.gzip = None;
            return self.inner.end_head(size);
        }
        let length = match size {
            BodySize::Known(length) => Some(length),
            _ => None,
        };
        self.inner.field(b"Content-Encoding", b"gzip");
        self.is_compressed = true;
        match &gzip.plan.gzip.coding {
            // The answer to HEAD says what that to GET would, and has no body.
            Some(coding) if !gzip.plan.is_head => {
                gzip.coder = Some(Coder::new(coding.level, length));
            }
            _ => self.gzip = None,
        }
        self.inner.end_head(BodySize::Unknown);
    }

    async fn write(&mut self, data: &[u8]) -> Result<(), TransportError> {
        if self.is_coding() {
            self.code(data, Step::Write).await
        } else {
            self.inner.write(data).await
        }
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        if self.is_coding() {
            self.code(&[], Step::Flush).await?;
        }
        self.inner.flush().await
    }

    fn segment_gaps(&self) -> Option<Gaps> {
        if self.is_coding() {
            return None;
        }
        self.inner.segment_gaps()
    }

    async fn segments(
        &mut self,
        segments: Segments,
        filled: usize,
        behind: Behind,
    ) -> Result<Segments, TransportError> {
        self.inner.segments(segments, filled, behind).await
    }

    async fn piece(&mut self, piece: Piece, behind: Behind) -> Result<(), TransportError> {
        if self.is_coding() {
            return exchange::write_piece(self, piece).await;
        }
        self.inner.piece(piece, behind).await
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        if self.is_coding() {
            self.code(&[], Step::Finish).await?;
        }
        if let Some(coder) = self.gzip.take().and_then(|gzip| gzip.coder) {
            self.ratio = coder.ratio();
        }
        self.inner.finish().await
    }

    fn switch_protocols(&mut self) {
        self.gzip = None;
        self.inner.switch_protocols();
    }

    async fn end_sending(&mut self) -> Result<(), TransportError> {
        self.inner.end_sending().await
    }

    fn limit_rate(&mut self, rate: u64, after: u64) {
        self.inner.limit_rate(rate, after);
    }

    async fn early_hints(&mut self, fields: &[(&[u8], &[u8])]) -> Result<(), TransportError> {
        self.inner.early_hints(fields).await
    }

    fn expect_trailers(&mut self) {
        self.inner.expect_trailers();
    }

    fn takes_trailers(&self) -> bool {
        self.inner.takes_trailers()
    }

    fn trailer(&mut self, name: &[u8], value: &[u8]) {
        self.inner.trailer(name, value);
    }

    fn refuse_chunks(&mut self) {
        self.inner.refuse_chunks();
    }

    fn is_committed(&self) -> bool {
        self.inner.is_committed()
    }

    fn discard(&mut self) {
        self.gzip = None;
        self.is_compressed = false;
        self.inner.discard();
    }

    fn close_after(&mut self) {
        self.inner.close_after();
    }

    fn announce_keep_alive(&mut self, timeout: Duration) {
        self.inner.announce_keep_alive(timeout);
    }

    fn body_bytes(&self) -> u64 {
        self.inner.body_bytes()
    }

    fn own_fields(&self) -> OwnFields {
        OwnFields {
            is_compressed: self.is_compressed,
            gzip_ratio: self.ratio,
            ..self.inner.own_fields()
        }
    }
}
