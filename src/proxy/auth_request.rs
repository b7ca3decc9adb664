//! `auth_request`: another location decides whether a request may pass.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use smallvec::SmallVec;

use crate::config::{Assignable, AuthRequest, Location};
use crate::http::trailers::Trailers;
use crate::net::buffers::{Buffer, Gaps, Segments};
use crate::net::socket::Behind;
use crate::telemetry::error_log::Level;

use super::access::Opinion;
use super::ahead::Ahead;
use super::exchange::{BodyError, BodySize, BodySource, Piece, ResponseSink};
use super::forward::Failure;
use super::log;
use super::patience::{gone, while_awaited};
use super::request::{Answer, Attempt, Captured, Request, Target};
use super::rewrite::assign;
use super::serve::{Entry, serve};
use super::transport::TransportError;
use super::variables::expand_to_vec;

/// What a backend may say behind its verdict without losing its connection.
const MAX_IGNORED: u64 = 64 << 10;

/// Asks the location, by a GET without a body and with the request's fields.
///
/// # Errors
/// The client is gone.
///
/// Cancelling it leaves the request without an answer.
pub(super) async fn check(
    request: &mut Request<'_>,
    auth: &AuthRequest,
    body: &mut impl BodySource,
) -> Result<Opinion, Failure> {
    let outer = Outer::leave(request, &auth.uri);
    let mut sink = Verdict::default();
    if while_awaited(ask(request, &mut sink), body).await.is_none() {
        outer.resume(request);
        return Err(gone(request));
    }
    let status = request.answer.status;
    // While the request is still the one that was answered; what is the request's
    // own to be changed is so when it is itself again.
    let mut later = Vec::new();
    for (variable, value) in &*auth.set {
        let value = expand_to_vec(value, request);
        match *variable {
            Assignable::User(id) => request.assign(id, &value),
            variable => later.push((variable, value)),
        }
    }
    outer.resume(request);
    for (variable, value) in later {
        assign(request, variable, value);
    }
    Ok(match status {
        200..300 => Opinion::LetIn,
        401 => {
            request.answer.challenges.append(&mut sink.challenges);
            Opinion::KeepOut(401)
        }
        403 => Opinion::KeepOut(403),
        _ => {
            log::request_error(
                request,
                Level::Error,
                format_args!("auth request unexpected status: {status}"),
            );
            Opinion::Fail(500)
        }
    })
}

/// Of a type of its own, because the phases that it runs through contain this.
fn ask<'r>(
    request: &'r mut Request<'_>,
    sink: &'r mut Verdict,
) -> Pin<Box<dyn Future<Output = ()> + 'r>> {
    Box::pin(async move {
        serve(request, Entry::Path, &mut NoBody, sink).await;
    })
}

/// What of a request is its own while a subrequest is in its place. Variables,
/// limits and the client are common to both.
struct Outer<'a> {
    location: &'a Location,
    target: Target,
    captured: Captured<'a>,
    body: Option<Box<[u8]>>,
    trailers: Trailers,
    attempts: SmallVec<[Attempt; 2]>,
    answer: Answer,
}

impl<'a> Outer<'a> {
    /// Makes it the subrequest for a path.
    fn leave(request: &mut Request<'a>, path: &[u8]) -> Self {
        let target = Target {
            path: Some(path.to_vec()),
            args: Some(Vec::new()),
            is_as_sent: false,
            is_internal: true,
            is_get: true,
            is_subrequest: true,
            is_barred: request.target.is_barred,
            ..Target::default()
        };
        Self {
            location: request.location,
            target: std::mem::replace(&mut request.target, target),
            captured: request.captured.take(),
            body: request.body.take(),
            trailers: std::mem::take(&mut request.trailers),
            attempts: std::mem::take(&mut request.attempts),
            answer: std::mem::take(&mut request.answer),
        }
    }

    /// Makes it what it was.
    fn resume(self, request: &mut Request<'a>) {
        request.location = self.location;
        request.target = self.target;
        request.captured.replace(self.captured);
        request.body = self.body;
        request.trailers = self.trailers;
        request.attempts = self.attempts;
        request.answer = self.answer;
    }
}

/// A body that is not there.
struct NoBody;

impl BodySource for NoBody {
    fn size(&self) -> BodySize {
        BodySize::None
    }

    fn awaits_continue(&self) -> bool {
        false
    }

    fn has_piece(&self) -> bool {
        false
    }

    fn set_limits(&mut self, _: Duration, _: u64) {}

    async fn next(&mut self) -> Result<Option<Piece>, BodyError> {
        Ok(None)
    }

    fn give_back(&mut self, _: Buffer) {}

    async fn read_ahead(&mut self, _: usize, _: bool) -> Result<(), BodyError> {
        Ok(())
    }

    fn ahead(&self) -> Option<&Ahead> {
        None
    }

    fn ahead_mut(&mut self) -> Option<&mut Ahead> {
        None
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn abandoned(&mut self) {
        // The client's connection is the request's own, and it will see.
        pending().await
    }

    fn is_finished(&self) -> bool {
        true
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn withhold(&mut self) {}

    fn switch_protocols(&mut self) {}
}

/// Takes an answer and keeps nothing of it but its challenges.
#[derive(Default)]
struct Verdict {
    challenges: Vec<Vec<u8>>,
    body_bytes: u64,
    committed: bool,
}

impl Verdict {
    fn ignore(&mut self, length: usize) -> Result<(), TransportError> {
        self.committed = true;
        self.body_bytes += length as u64;
        if self.body_bytes > MAX_IGNORED {
            return Err(TransportError::Io(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(())
    }
}

impl ResponseSink for Verdict {
    async fn interim(&mut self, _: u16) -> Result<(), TransportError> {
        Ok(())
    }

    fn start(&mut self, _: u16, _: Option<&[u8]>, _: Duration) {
        self.challenges.clear();
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"WWW-Authenticate") {
            self.challenges.push(value.to_vec());
        }
    }

    fn end_head(&mut self, _: BodySize) {}

    async fn write(&mut self, data: &[u8]) -> Result<(), TransportError> {
        self.ignore(data.len())
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.ignore(0)
    }

    fn segment_gaps(&self) -> Option<Gaps> {
        None
    }

    async fn segments(
        &mut self,
        segments: Segments,
        filled: usize,
        _: Behind,
    ) -> Result<Segments, TransportError> {
        self.ignore(filled).map(|()| segments)
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    fn switch_protocols(&mut self) {
        // Nobody is there to talk it: the first byte ends it.
        self.body_bytes = MAX_IGNORED;
    }

    async fn end_sending(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    fn is_committed(&self) -> bool {
        self.committed
    }

    fn discard(&mut self) {
        self.challenges.clear();
    }

    fn limit_rate(&mut self, _: u64, _: u64) {}

    async fn early_hints(&mut self, _: &[(&[u8], &[u8])]) -> Result<(), TransportError> {
        Ok(())
    }

    fn expect_trailers(&mut self) {}

    fn takes_trailers(&self) -> bool {
        false
    }

    fn trailer(&mut self, _: &[u8], _: &[u8]) {}

    fn refuse_chunks(&mut self) {}

    fn close_after(&mut self) {}

    fn announce_keep_alive(&mut self, _: Duration) {}

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}
