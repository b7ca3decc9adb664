//! One peer over HTTP/2: a stream on a connection that others may share, and
//! another one where nothing of the request was done on the first.

use std::time::Instant;

use crate::config::Proxy;
use crate::net::deadlines::Deadline;
use crate::telemetry::error_log::Level;

use super::exchange::{BodySource, ResponseSink};
use super::forward::{Target, Trouble, Way, connect, reason_of};
use super::log;
use super::pool::Connection;
use super::request::Request;
use super::streams::{Lease, Pick, for_one_request};
use super::upstream::h2::{Kept, exchange};
use super::upstream::record;
use super::upstream::secure::Secure;

/// How often one peer is asked, over one stream after the other, while it has
/// not looked at the request: a connection may be said goodbye to at any time.
const ASKED_AT_MOST: usize = 3;

impl Way for Kept {
    fn try_peer<B: BodySource, S: ResponseSink>(
        request: &mut Request<'_>,
        proxy: &Proxy,
        target: &Target<'_>,
        kept: &mut Self,
        body: &mut B,
        sink: &mut S,
    ) -> impl Future<Output = Result<(), Trouble>> {
        try_peer(request, proxy, target, kept, (body, sink))
    }

    fn may_repeat(&self) -> bool {
        self.is_whole()
    }
}

/// As `forward::try_peer`. Of the request's body, `kept` is what has been read.
async fn try_peer<B: BodySource, S: ResponseSink>(
    request: &mut Request<'_>,
    proxy: &Proxy,
    target: &Target<'_>,
    kept: &mut Kept,
    (body, sink): (&mut B, &mut S),
) -> Result<(), Trouble> {
    let peer = target.peer;
    let mut asked = 0;
    loop {
        asked += 1;
        let attempt = target.attempt();
        let started = attempt.started;
        request.attempts.push(attempt);
        let lease = find_stream(request, proxy, target).await;
        record(request, |attempt| {
            let is_reused = lease.as_ref().is_ok_and(Lease::is_reused);
            let now = if is_reused { started } else { Instant::now() };
            attempt.note_connected(lease.as_ref().ok().map(Lease::facts), now);
        });
        let lease =
            lease.map_err(|status| Trouble::of_peer(request, status, reason_of(status), false))?;
        let (exchanged, unwelcome) = ((&lease, &mut *kept), target.unwelcome);
        let ends = (&mut *body, &mut *sink);
        let result = exchange(request, proxy, peer, exchanged, unwelcome, ends).await;
        record(request, |attempt| {
            attempt.finished = Some(started.elapsed())
        });
        let Err(broken) = result else { return Ok(()) };
        let is_stale = || lease.is_reused() && target.repeatable && broken.is_stale_connection();
        let harmless = broken.is_unprocessed() || is_stale();
        if harmless && kept.is_whole() && asked < ASKED_AT_MOST {
            // Nobody's fault, and not worth a log line.
            request.attempts.pop();
            continue;
        }
        if !sink.is_committed() {
            sink.discard();
        }
        return Err(Trouble::of(broken, request, peer, sink));
    }
}

/// Room for a stream. On failure the log has been told, and the result is the
/// status for the client.
async fn find_stream(
    request: &Request<'_>,
    proxy: &Proxy,
    target: &Target<'_>,
) -> Result<Lease, u16> {
    let pool = &target.upstream.streams;
    if proxy.link.proxy_protocol.is_some() {
        // Another's connection would speak for another client.
        let connection = connect(request, proxy, target).await?;
        return Ok(for_one_request(connection, pool, proxy.send_timeout));
    }
    let tls = target.secure.map(Secure::key);
    let deadline = Deadline::new();
    deadline.arm(proxy.connect_timeout);
    loop {
        let pick = pool.pick(&target.peer.address, tls, target.local, Instant::now());
        match pick {
            Pick::Stream(lease) => return Ok(lease),
            Pick::Wait(over) => {
                if deadline.run(over.given()).await.is_err() {
                    let message = format_args!(
                        "upstream timed out (110: Connection timed out) \
                         while connecting to upstream"
                    );
                    log::upstream_error(request, Level::Error, Some(target.peer), message);
                    return Err(504);
                }
            }
            Pick::Connect(connecting) => {
                let connection: Connection = connect(request, proxy, target).await?;
                return Ok(connecting.share(connection, proxy.send_timeout));
            }
        }
    }
}
