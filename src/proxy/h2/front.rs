//! A client's HTTP/2 connection, from its preface to its GOAWAY.
//!
//! Its task moves bytes, takes in streams and knows when it is time to end;
//! what is asked on a stream is served by a task of that stream's own.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use crate::http::error::HeadError;
use crate::http::h1::framing::{self, Kind};
use crate::http::h1::parse::{HeadLimits, MAX_FIELDS};
use crate::http::h2::connection::{Broken, Limits};
use crate::http::h2::fields::{self, Draft};
use crate::http::h2::flow::MAX_WINDOW;
use crate::http::h2::frame::Reason;
use crate::net::buffers::Buffer;
use crate::net::deadlines::{Deadline, Wait};
use crate::net::spawn::spawn;
use crate::proxy::connection::{HttpConnection, head_limits};
use crate::proxy::transport::{Linger, Transport, TransportError};
use crate::telemetry::error_log::Level;
use crate::telemetry::metrics::Phase;

use super::drive::{Ended, Side, drive};
use super::mux::{Mux, Opened};
use super::slot::Slot;
use super::stream::{self, Arrival, KeptHead};

/// The smallest window for a body: below it a frame of the usual size would
/// wait for itself.
const MIN_WINDOW: usize = 16 << 10;
/// What each field counts beyond its bytes in the list's size (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;
/// How long a client that is told to leave has to do so when it asks nothing.
const GRACE: Duration = Duration::from_secs(1);
/// How long a close waits for the client to take note of what it was told.
const LINGER: Duration = Duration::from_secs(1);

thread_local! {
    /// What a request's fields are noted in before they are laid out.
    static DRAFT: RefCell<Draft> = RefCell::default();
}

/// Serves the connection to its end: how long its close may linger, or `None`
/// to break it off. Streams may outlast it, with nobody to answer.
pub(in crate::proxy) async fn serve(
    session: &mut HttpConnection,
    transport: &mut Transport,
) -> Option<Linger> {
    let server = session.server()?;
    let send_timeout = server.root.send_timeout;
    let http2 = server.connection.http2;
    let (limits, header_timeout) = session.head_limits()?;
    let mux = Rc::new(Mux::new(
        granted(
            &limits,
            http2.body_preread_size,
            http2.max_concurrent_streams,
        ),
        transport.tx().gaps(),
    ));
    let front = RefCell::new(Front {
        session,
        mux: Rc::clone(&mux),
        max_streams: http2.max_concurrent_streams,
        deadline: Deadline::new(),
        waits: None,
        header_timeout,
        leaving: false,
        refuses: false,
    });
    front.borrow_mut().look_about();
    let (rx, tx) = transport.split();
    let ended = drive(&front, &mux, rx, tx, send_timeout).await;
    let is_at_work = mux.is_in_fields() || mux.active() > 0;
    mux.end(None);
    drop(front);
    match ended {
        // The client's own end, whatever is still on its way.
        Ended::Closed => {
            if is_at_work {
                session.log_http2(format_args!("client prematurely closed connection"));
            }
            Some(Linger::NONE)
        }
        Ended::Left => Some(Linger::for_time(LINGER)),
        Ended::Broken(broken) => {
            session.log_http2(format_args!("{broken}"));
            Some(Linger::for_time(LINGER))
        }
        Ended::Failed(call, error @ TransportError::Tls(_)) => {
            session.log_http2(format_args!("{call} {error}"));
            transport.alert(&error).await;
            Some(Linger::NONE)
        }
        // The peer is gone, or as good as gone.
        Ended::Failed(_, error @ TransportError::TimedOut) => {
            session.log_http2(format_args!("client {error}"));
            None
        }
        Ended::Failed(call, error) => {
            session.log_http2(format_args!("{call} {error}"));
            None
        }
    }
}

fn granted(limits: &HeadLimits, window: usize, streams: u32) -> Limits {
    let window = window.clamp(MIN_WINDOW, MAX_WINDOW as usize);
    // Room for each stream's: one that nobody reads stops no other.
    let all = window
        .saturating_mul(streams as usize)
        .min(MAX_WINDOW as usize);
    Limits {
        streams,
        window: to_u32(window),
        connection_window: to_u32(all),
        list: to_u32(limits.total.saturating_add(MAX_FIELDS * FIELD_OVERHEAD)),
    }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

struct Front<'s> {
    session: &'s mut HttpConnection,
    mux: Rc<Mux>,
    max_streams: u32,
    deadline: Deadline,
    /// What `deadline` has been armed for.
    waits: Option<WaitsFor>,
    header_timeout: Duration,
    /// The client has been told to take new requests elsewhere.
    leaving: bool,
    /// The client is no longer welcome: what it asks from now on goes unheard.
    refuses: bool,
}

/// What a connection waits for, which decides how long it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// The rest of a request's fields.
    Fields,
    FirstRequest,
    /// Another request, after so many.
    Request(u64),
    /// Its streams.
    Streams,
    /// The client, to leave.
    Leave,
}

impl Side for Front<'_> {
    fn take_in(&mut self, input: &[u8]) -> Result<usize, Broken> {
        let mux = Rc::clone(&self.mux);
        let now = mux.elapsed();
        let mut used = 0;
        DRAFT.with_borrow_mut(|draft| {
            while let Some(opened) = mux.take_in(input, &mut used, now, draft)? {
                match opened {
                    Opened::Stream { stream, ends } => self.begin(stream, ends, draft)?,
                    Opened::Malformed => self.report(draft),
                }
            }
            Ok(used)
        })
    }

    fn look_at_clock(&mut self, context: &Context<'_>) -> Option<Ended> {
        match self.deadline.poll(context) {
            Wait::On => {}
            Wait::Nudged => self.look_about(),
            Wait::Over => return self.time_is_up(),
        }
        None
    }

    fn arm(&mut self, context: &Context<'_>) {
        let requests = self.session.connection.requests;
        let waits = if self.mux.is_in_fields() {
            WaitsFor::Fields
        } else if self.mux.active() > 0 {
            WaitsFor::Streams
        } else if self.leaving {
            WaitsFor::Leave
        } else if requests == 0 {
            WaitsFor::FirstRequest
        } else {
            WaitsFor::Request(requests)
        };
        if self.waits == Some(waits) {
            return;
        }
        self.waits = Some(waits);
        let phase = match waits {
            WaitsFor::Fields => Phase::Reading,
            WaitsFor::Streams => Phase::Writing,
            _ => Phase::Waiting,
        };
        self.session.registration.enter(phase);
        let server = self.session.server();
        let keepalive = || server.map_or(Duration::ZERO, |it| it.root.keepalive_timeout);
        let at_least = || server.map_or(Duration::ZERO, |it| it.root.parting.keepalive_min_timeout);
        match waits {
            WaitsFor::Fields => self.deadline.arm(self.header_timeout),
            WaitsFor::FirstRequest => self.deadline.arm_idle(self.header_timeout, Duration::ZERO),
            WaitsFor::Request(_) => self.deadline.arm_idle(keepalive(), at_least()),
            // Idle for the clock, so that it ends when the worker drains.
            WaitsFor::Streams if !self.leaving => {
                self.deadline.arm_idle(Duration::MAX, Duration::ZERO)
            }
            WaitsFor::Streams => self.deadline.arm(Duration::MAX),
            WaitsFor::Leave => self.deadline.arm(GRACE),
        }
        if self.mux.active() == 0 {
            self.mux.trim();
        }
        // Armed anew, it must be listened to anew.
        if self.deadline.poll(context) == Wait::Nudged {
            self.look_about();
            // What there may be to say leaves by another turn.
            context.waker().wake_by_ref();
        }
    }
}

impl Front<'_> {
    /// Takes in a stream that the client has opened.
    fn begin(&mut self, stream: u32, ends: bool, draft: &Draft) -> Result<(), Broken> {
        self.look_about();
        // Of those that were reset some are still at work, and no longer count
        // for the protocol core.
        let crowded = self.mux.active() >= self.max_streams.saturating_mul(2);
        let limits = self.limits().filter(|_| !self.refuses && !crowded);
        let Some(limits) = limits else {
            self.mux.refuse(stream);
            return Ok(());
        };
        let (arrival, buffer) = self.lay(draft, &limits);
        let length = match arrival.framed.map(framing::BodyFraming::kind) {
            Ok(Kind::Length(length)) if arrival.laid.is_ok() && !arrival.is_tunnel => Some(length),
            _ => None,
        };
        let Some(lane) = self.mux.admit(stream, ends, length)? else {
            stream::report(arrival, buffer, HeadError::LengthWithoutBody);
            return Ok(());
        };
        let session = &*self.session;
        session.registration.enter(Phase::Writing);
        let slot = Slot::new(Rc::clone(&self.mux), stream, lane);
        let log = session.view.gateway.main_error_log().cloned();
        spawn(stream::run(arrival, buffer, slot), move |panic| {
            if let Some(log) = log {
                let message = format_args!("a stream's task panicked: {panic}");
                log.log(Level::Alert, None, message);
            }
        });
        if self.is_worn() {
            self.leave();
        }
        Ok(())
    }

    /// Tells the logs of what is no request.
    fn report(&mut self, draft: &Draft) {
        if let (Some(limits), Some(fault)) = (self.limits(), draft.fault()) {
            let (arrival, buffer) = self.lay(draft, &limits);
            stream::report(arrival, buffer, fault);
        }
    }

    fn limits(&self) -> Option<HeadLimits> {
        let session = &*self.session;
        let view = &session.view;
        let listener = view.gateway.config.listeners.get(session.index)?;
        Some(head_limits(view, listener, &session.connection)?.0)
    }

    /// The request in the draft, as far as it is one, and the bytes of its head.
    fn lay(&mut self, draft: &Draft, limits: &HeadLimits) -> (Arrival, Buffer) {
        let session = &mut *self.session;
        let mut head = KeptHead::take();
        let mut buffer = Buffer::for_size(draft.room());
        let is_tunnel = draft.asks_for_protocol();
        let key = is_tunnel.then(stream::websocket_key);
        let key = key.as_ref().map_or(&[][..], |key| key.as_bytes());
        let laid = fields::lay(draft, key, limits, &mut buffer, &mut head.0);
        let framed = framing::of_request(&head.0, &buffer);
        session.worker.metrics.requests.increment();
        let connection = session.connection.clone();
        session.connection.requests += 1;
        let arrival = Arrival {
            worker: Rc::clone(&session.worker),
            view: Rc::clone(&session.view),
            connection,
            index: session.index,
            head,
            laid,
            framed,
            is_tunnel,
            _registration: Rc::clone(&session.registration),
        };
        (arrival, buffer)
    }

    /// Whether `keepalive_requests` or `keepalive_time` is used up.
    fn is_worn(&self) -> bool {
        let connection = &self.session.connection;
        self.session.server().is_none_or(|server| {
            connection.requests >= server.root.keepalive_requests
                || connection.opened.elapsed() >= server.root.delivery.keepalive_time
        })
    }

    /// Follows what has been published, and sees whether the client may stay.
    fn look_about(&mut self) {
        match self.session.follow_reload() {
            Some(true) => {}
            Some(false) => self.leave(),
            None => {
                self.refuses = true;
                self.leave();
            }
        }
        if self.session.worker.is_draining() {
            self.leave();
        }
    }

    /// GOAWAY in two steps (RFC 9113 §6.8): what is already on its way is still
    /// served, and the client learns for certain what was not.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.mux.go_away_soon();
        }
    }

    fn time_is_up(&mut self) -> Option<Ended> {
        if self.session.worker.is_draining() && !self.leaving {
            self.leave();
            return None;
        }
        match self.waits {
            Some(WaitsFor::Streams) | None => return None,
            Some(WaitsFor::Fields) => self
                .session
                .log_http2(format_args!("client timed out (110: Connection timed out)")),
            Some(WaitsFor::FirstRequest | WaitsFor::Request(_) | WaitsFor::Leave) => {}
        }
        self.leaving = true;
        self.mux.go_away(Reason::NoError);
        Some(Ended::Left)
    }
}

impl HttpConnection {
    /// What went wrong is the client's doing, or its network's.
    fn log_http2(&self, what: fmt::Arguments<'_>) {
        if let Some(server) = self.server() {
            let message = format_args!("{what} while processing HTTP/2 connection");
            self.log(server, Level::Info, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_an_idle_connection_of_http2_adds_is_small() {
        let size = future_size(serve) + size_of::<Mux>();
        assert!(size <= 4 << 10, "{size} bytes");
    }
}
