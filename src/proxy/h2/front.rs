//! A client's HTTP/2 connection, from its preface to its GOAWAY.
//!
//! Its task moves bytes, takes in streams and knows when it is time to end;
//! what is asked on a stream is served by a task of that stream's own.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ::h2::server::{Builder, Connection, SendResponse};
use ::h2::{Reason, RecvStream};
use ::http::Request as Incoming;

use crate::http::h1::parse::MAX_FIELDS;
use crate::http::h2::meter::Meter;
use crate::net::deadlines::{Deadline, Wait};
use crate::net::spawn::spawn;
use crate::proxy::connection::HttpConnection;
use crate::proxy::transport::{Linger, Transport, TransportError};
use crate::telemetry::error_log::Level;
use crate::telemetry::metrics::Phase;

use super::chunk::Chunk;
use super::io::{Inspect, Pipe, drive};
use super::stream::{self, Arrival};

/// What each stream may have handed over and not yet sent, bytes: one bulk
/// buffer, so that the next can be received meanwhile.
const SEND_BUFFER: usize = 64 << 10;
/// The smallest window for a body: below it a frame of the usual size would
/// wait for itself.
const MIN_WINDOW: usize = 16 << 10;
/// The largest there is (RFC 9113 §6.9.1).
const MAX_WINDOW: usize = i32::MAX as usize;
/// What each field counts beyond its bytes in the list's size (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;
/// Resets that a client has made us send over the connection's life: what each
/// stops has begun to cost (CVE-2025-8671).
const MAX_PROVOKED_RESETS: usize = 256;
/// How long a client that is told to leave has to do so when it asks nothing.
const GRACE: Duration = Duration::from_secs(1);
/// How long a close waits for the client to take note of what it was told.
const LINGER: Duration = Duration::from_secs(1);

/// Serves the connection to its end: how long its close may linger, or `None`
/// to break it off. Streams may outlast it, with nobody to answer.
pub(in crate::proxy) async fn serve(
    session: &mut HttpConnection,
    transport: &mut Transport,
) -> Option<Linger> {
    let send_timeout = session.server()?.root.send_timeout;
    let pipe = Pipe::new(transport);
    let watch = Rc::new(Watch::new());
    pipe.inspect_by(Rc::clone(&watch));
    let ended = drive(
        transport,
        &pipe,
        send_timeout,
        run(session, pipe.clone(), watch),
    )
    .await;
    let error = pipe.take_error();
    match (ended, &error) {
        (_, Some(error @ TransportError::Tls(_))) => {
            session.log_http2(format_args!("recv() {error}"));
            transport.alert(error).await;
            Some(Linger::NONE)
        }
        // The peer is gone, or as good as gone.
        (_, Some(error)) => {
            session.log_http2(format_args!("{error}"));
            None
        }
        (Ended::Left, None) => Some(Linger::for_time(LINGER)),
        (Ended::Broken(error), None) => {
            session.log_http2(format_args!("{error}"));
            Some(Linger::for_time(LINGER))
        }
        (Ended::Closed, None) => Some(Linger::NONE),
    }
}

/// How a connection ended.
enum Ended {
    /// The client has closed it.
    Closed,
    /// We told the client to go.
    Left,
    /// The client broke the protocol, and has been told so.
    Broken(::h2::Error),
}

async fn run(session: &mut HttpConnection, pipe: Pipe, watch: Rc<Watch>) -> Ended {
    let Some((limits, header_timeout)) = session.head_limits() else {
        return Ended::Closed;
    };
    let Some(server) = session.server() else {
        return Ended::Closed;
    };
    let http2 = server.connection.http2;
    let window = http2.body_preread_size.clamp(MIN_WINDOW, MAX_WINDOW);
    let streams = http2.max_concurrent_streams;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(streams)
        .initial_window_size(to_u32(window))
        // Room for each stream's: one that nobody reads stops no other.
        .initial_connection_window_size(to_u32(
            window.saturating_mul(streams as usize).min(MAX_WINDOW),
        ))
        .max_header_list_size(to_u32(
            limits.total.saturating_add(MAX_FIELDS * FIELD_OVERHEAD),
        ))
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(MAX_PROVOKED_RESETS))
        .enable_connect_protocol();
    let deadline = Deadline::new();
    deadline.arm_idle(header_timeout, Duration::ZERO);
    let connection = match deadline.run(builder.handshake(pipe)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if error.is_io() => return Ended::Closed,
        Ok(Err(error)) => return Ended::Broken(error),
        Err(_) => return Ended::Left,
    };
    let mut front = Front {
        session,
        connection,
        streams: Rc::default(),
        max_streams: streams,
        watch,
        deadline,
        waits: None,
        header_timeout,
        leaving: false,
        refuses: false,
    };
    front.look_about();
    poll_fn(|context| front.poll(context)).await
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

struct Front<'s> {
    session: &'s mut HttpConnection,
    connection: Connection<Pipe, Chunk>,
    streams: Rc<Streams>,
    max_streams: u32,
    watch: Rc<Watch>,
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

impl Front<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        self.streams.listen(context);
        match self.deadline.poll(context) {
            Wait::On => {}
            Wait::Nudged => self.look_about(),
            Wait::Over => self.time_is_up(),
        }
        if self.watch.is_flooded() {
            self.session.log_http2(format_args!("http2 flood detected"));
            self.leaving = true;
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
        loop {
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(Some(Err(error))) if error.is_io() => {
                    return Poll::Ready(Ended::Closed);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Ended::Broken(error)),
                Poll::Ready(None) if self.leaving => return Poll::Ready(Ended::Left),
                Poll::Ready(None) => return Poll::Ready(Ended::Closed),
                Poll::Pending => break,
            }
        }
        self.arm();
        Poll::Pending
    }

    /// Takes in a stream that the client has opened.
    fn begin(&mut self, request: Incoming<RecvStream>, mut respond: SendResponse<Chunk>) {
        self.look_about();
        // Of those that were reset some are still at work, and no longer count
        // for the protocol core.
        let crowded = self.streams.active.get() >= self.max_streams.saturating_mul(2);
        if self.refuses || crowded {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let session = &mut *self.session;
        session.worker.metrics.requests.increment();
        session.registration.enter(Phase::Writing);
        let arrival = Arrival {
            worker: Rc::clone(&session.worker),
            view: Rc::clone(&session.view),
            connection: session.connection.clone(),
            index: session.index,
            request,
            respond,
            registration: Rc::clone(&session.registration),
            slot: Slot::take(&self.streams, &self.watch),
        };
        session.connection.requests += 1;
        let log = session.view.gateway.main_error_log().cloned();
        spawn(stream::run(arrival), move |panic| {
            if let Some(log) = log {
                let message = format_args!("a stream's task panicked: {panic}");
                log.log(Level::Alert, None, message);
            }
        });
        if self.is_worn() {
            self.leave();
        }
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
            self.connection.graceful_shutdown();
        }
    }

    fn time_is_up(&mut self) {
        if self.session.worker.is_draining() && !self.leaving {
            self.leave();
            return;
        }
        match self.waits {
            Some(WaitsFor::Streams) | None => return,
            Some(WaitsFor::Fields) => self
                .session
                .log_http2(format_args!("client timed out (110: Connection timed out)")),
            Some(WaitsFor::FirstRequest | WaitsFor::Request(_) | WaitsFor::Leave) => {}
        }
        self.leaving = true;
        self.connection.abrupt_shutdown(Reason::NO_ERROR);
    }

    fn arm(&mut self) {
        let requests = self.session.connection.requests;
        let idle = self.streams.active.get() == 0;
        let waits = if self.watch.is_in_fields() {
            WaitsFor::Fields
        } else if !idle {
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
    }
}

/// The streams of a connection that are being served.
#[derive(Default)]
struct Streams {
    active: Cell<u32>,
    /// The connection's.
    waker: RefCell<Option<Waker>>,
}

impl Streams {
    fn listen(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|it| it.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
    }
}

/// A stream being served.
pub(super) struct Slot {
    streams: Rc<Streams>,
    watch: Rc<Watch>,
}

impl Slot {
    fn take(streams: &Rc<Streams>, watch: &Rc<Watch>) -> Self {
        streams.active.set(streams.active.get() + 1);
        Self {
            streams: Rc::clone(streams),
            watch: Rc::clone(watch),
        }
    }

    /// It has been answered in full.
    pub(super) fn finished(&self) {
        self.watch.meter.borrow_mut().earn();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let left = self.streams.active.get().saturating_sub(1);
        self.streams.active.set(left);
        // The connection may now be idle.
        if left == 0
            && let Some(waker) = &*self.streams.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}

/// What looks at a client's frames before the protocol core does.
struct Watch {
    meter: RefCell<Meter>,
    opened: Instant,
    flooded: Cell<bool>,
}

impl Watch {
    fn new() -> Self {
        Self {
            meter: RefCell::new(Meter::new()),
            opened: Instant::now(),
            flooded: Cell::new(false),
        }
    }

    fn is_in_fields(&self) -> bool {
        self.meter.borrow().is_in_fields()
    }

    /// Whether too much has come; once.
    fn is_flooded(&self) -> bool {
        self.flooded.take()
    }
}

impl Inspect for Rc<Watch> {
    fn inspect(&mut self, bytes: &[u8]) -> bool {
        let counted = self
            .meter
            .borrow_mut()
            .observe(bytes, self.opened.elapsed());
        if counted.is_err() {
            self.flooded.set(true);
        }
        counted.is_ok()
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
