//! HTTP/2 connections to an upstream, each shared by many requests at once,
//! per worker: as few as the peer's limits allow.
//!
//! ```text
//! request ─ pick ─→ Lease ── one stream ──┐
//! request ─ pick ─→ Lease ── one stream ──┤ Link ── task: h2 over Pipe ── socket
//! request ─ pick ─→ Wait                  ┘
//! ```
//!
//! Who finds no connection makes one, and who comes while one is being made
//! waits for it; until the peer has said how many streams it takes
//! (RFC 9113 §6.5.2), that is one.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{self, SendRequest};

use crate::config::{Upstream, UpstreamAddress};
use crate::net::spawn::spawn;

use super::balance::Group;
use super::h2::io::{Pipe, drive};
use super::pool::{Connection, Key, Limits, LinkFacts, TlsKeyRef};
use super::transport::{Linger, Transport, TransportError};

/// What a peer may send of a response before it has been passed on. As much as
/// a fast client takes in one go, for each stream that a slow one holds up.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all streams of a connection: not limited, because whatever one
/// slow client left of it would be all that the others have.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Bytes of a response's fields at the most, as RFC 9113 §6.5.2 counts them.
const HEAD_LIMIT: u32 = 64 << 10;
/// Bytes of a request's body that wait for a peer, for each stream.
const SEND_BUFFER: usize = 128 << 10;
/// What frames of a few bytes may cost beside their payload until clients have
/// taken it. The window is no measure for it here.
const SMALL_FRAMES: usize = 64 << 20;
/// Streams that were given up and are remembered, because the peer may not have
/// heard of it yet.
const GIVEN_UP: usize = 256;
/// Stands for the peer's limit until it is known. No peer's: it is above all
/// that a stream identifier can count.
const UNKNOWN: usize = usize::MAX - 1;

/// The connections of one upstream on one worker.
#[derive(Debug)]
pub(crate) struct StreamPool {
    limits: Limits,
    /// Oldest first.
    open: RefCell<Vec<Rc<Link>>>,
    /// Being made; the signal is given when that is over.
    connecting: RefCell<Vec<(Key, Rc<Signal>)>>,
}

/// What [`StreamPool::pick`] has found.
pub(crate) enum Pick<'p> {
    /// Room for one more stream.
    Stream(Lease),
    /// There may be room when the signal is given.
    Wait(Rc<Signal>),
    /// Nothing: a connection is to be made.
    Connect(Connecting<'p>),
}

impl StreamPool {
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self {
            limits: Limits::of(upstream),
            open: RefCell::default(),
            connecting: RefCell::default(),
        }
    }

    /// Takes over what an older pool holds to peers that still exist.
    pub(crate) fn inherit(&self, older: &Self, group: &Group) {
        let mut old = older.open.borrow_mut();
        let (kept, gone): (Vec<_>, Vec<_>) =
            old.drain(..).partition(|link| group.has(&link.key.address));
        gone.iter().for_each(|link| link.retire());
        self.open.borrow_mut().extend(kept);
    }

    /// Lets go of what leads to peers that have left.
    pub(crate) fn keep_only(&self, group: &Group) {
        let mut open = self.open.borrow_mut();
        open.retain(|link| {
            let stays = group.has(&link.key.address);
            if !stays {
                link.retire();
            }
            stays
        });
    }

    /// A stream on the latest connection to `address` that has room, made under
    /// exactly this TLS identity and for this name (or without TLS).
    pub(crate) fn pick(
        &self,
        address: &UpstreamAddress,
        tls: Option<TlsKeyRef<'_>>,
        local: Option<SocketAddr>,
        now: Instant,
    ) -> Pick<'_> {
        let mut open = self.open.borrow_mut();
        open.retain(|link| link.takes_streams(now));
        let mut ungreeted = None;
        let ours = open.iter().rev();
        for link in ours.filter(|link| link.key.serves(address, tls, local)) {
            if !link.greeted.is_given() {
                ungreeted = Some(&link.greeted);
            } else if link.has_room()
                && let Some(lease) = link.begin()
            {
                return Pick::Stream(lease);
            }
        }
        if let Some(greeted) = ungreeted {
            return Pick::Wait(Rc::clone(greeted));
        }
        let mut connecting = self.connecting.borrow_mut();
        let under_way = connecting
            .iter()
            .find(|(key, _)| key.serves(address, tls, local));
        if let Some((_, over)) = under_way {
            return Pick::Wait(Rc::clone(over));
        }
        let over = Rc::new(Signal::default());
        let key = Key::new(address, tls, local);
        connecting.push((key, Rc::clone(&over)));
        Pick::Connect(Connecting { pool: self, over })
    }

    /// Closes what has been idle for too long, and of more idle connections
    /// than are to be kept the oldest. To be called now and then.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut open = self.open.borrow_mut();
        open.retain(|link| link.takes_streams(now));
        let mut too_many = idle(&open).count().saturating_sub(self.limits.idle);
        for link in idle(&open) {
            let is_old = now.duration_since(link.idle_since.get()) >= self.limits.timeout;
            if is_old || too_many > 0 {
                too_many = too_many.saturating_sub(1);
                link.retire();
            }
        }
    }

    /// Connections without a stream.
    pub(crate) fn len(&self) -> usize {
        idle(&self.open.borrow()).count()
    }

    /// Closes all when they are idle: the worker drains.
    pub(crate) fn clear(&self) {
        let mut open = self.open.borrow_mut();
        open.drain(..).for_each(|link| link.retire());
    }
}

fn idle(open: &[Rc<Link>]) -> impl Iterator<Item = &Rc<Link>> {
    open.iter().filter(|link| link.streams.get() == 0)
}

/// The right to make the connection that others wait for. Dropping it passes
/// it on to one of them.
pub(crate) struct Connecting<'p> {
    pool: &'p StreamPool,
    over: Rc<Signal>,
}

impl Connecting<'_> {
    /// Begins HTTP/2 on a connection and shares it. The first stream may begin
    /// before the peer has said a word.
    ///
    /// # Errors
    /// None that a connection can be at fault for. Cancelling it closes the
    /// connection.
    pub(crate) async fn share(
        self,
        connection: Connection,
        send_timeout: Duration,
    ) -> Result<Lease, h2::Error> {
        let link = Link::open(connection, self.pool.limits, send_timeout).await?;
        let lease = link.begin();
        self.pool.open.borrow_mut().push(link);
        lease.ok_or_else(|| h2::Reason::REFUSED_STREAM.into())
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        let mut connecting = self.pool.connecting.borrow_mut();
        connecting.retain(|(_, over)| !Rc::ptr_eq(over, &self.over));
        self.over.give();
    }
}

/// A connection that serves the request alone for which it was made.
///
/// # Errors
/// As [`Connecting::share`].
pub(crate) async fn for_one_request(
    connection: Connection,
    pool: &StreamPool,
    send_timeout: Duration,
) -> Result<Lease, h2::Error> {
    let link = Link::open(connection, pool.limits, send_timeout).await?;
    let lease = link.begin();
    link.retire();
    lease.ok_or_else(|| h2::Reason::REFUSED_STREAM.into())
}

/// A stream's share in a connection, which stays for as long as it is held.
pub(crate) struct Lease {
    link: Rc<Link>,
    sender: SendRequest<Bytes>,
    is_first: bool,
}

impl Lease {
    /// Where the stream begins.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// What the handshake agreed on, over TLS.
    pub(crate) fn facts(&self) -> Option<LinkFacts> {
        self.link.facts
    }

    /// Whether it is over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.link.key.tls.is_some()
    }

    /// Whether the connection has carried a request before this one.
    pub(crate) fn is_reused(&self) -> bool {
        !self.is_first
    }

    /// Why the connection is over, if its socket or its TLS said so.
    pub(crate) fn why_over(&self) -> Option<String> {
        self.link.why_over.borrow().clone()
    }

    /// No other stream is to begin on this connection: it may be dead.
    pub(crate) fn distrust(&self) {
        self.link.retire();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let link = &self.link;
        let left = link.streams.get().saturating_sub(1);
        link.streams.set(left);
        if left == 0 {
            let now = Instant::now();
            link.idle_since.set(now);
            if link.limits.idle == 0 || !link.takes_streams(now) {
                link.retire();
            }
        }
    }
}

/// A connection.
struct Link {
    key: Key,
    facts: Option<LinkFacts>,
    limits: Limits,
    opened: Instant,
    /// Whence streams begin; `None` when none may any more. Without it and
    /// without leases h2 says goodbye.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    /// Under way.
    streams: Cell<usize>,
    /// Ever.
    begun: Cell<u64>,
    idle_since: Cell<Instant>,
    /// Given when the peer's limits are known, or when it is over.
    greeted: Rc<Signal>,
    why_over: RefCell<Option<String>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("key", &self.key)
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

impl Link {
    async fn open(
        connection: Connection,
        limits: Limits,
        send_timeout: Duration,
    ) -> Result<Rc<Self>, h2::Error> {
        let (mut transport, key, facts) = connection.into_parts();
        let pipe = Pipe::new(&mut transport);
        let (sender, protocol) = settings().handshake(pipe.clone()).await?;
        let now = Instant::now();
        let link = Rc::new(Self {
            key,
            facts,
            limits,
            opened: now,
            sender: RefCell::new(Some(sender)),
            streams: Cell::new(0),
            begun: Cell::new(0),
            idle_since: Cell::new(now),
            greeted: Rc::default(),
            why_over: RefCell::default(),
        });
        let panicked = Rc::clone(&link);
        let on_panic = move |message: &str| panicked.end(Some(message.to_owned()));
        spawn(
            run(transport, pipe, protocol, Rc::clone(&link), send_timeout),
            on_panic,
        );
        Ok(link)
    }

    /// Whether streams may begin on it at all, room apart.
    fn takes_streams(&self, now: Instant) -> bool {
        let mut sender = self.sender.borrow_mut();
        let Some(open) = &mut *sender else {
            return false;
        };
        let is_spent = self.begun.get() >= self.limits.requests
            || now.duration_since(self.opened) >= self.limits.lifetime;
        // No stream of this handle's waits, so it is ready at once: unless the
        // connection is over, or the peer wants no more (RFC 9113 §6.8).
        let polled = open.poll_ready(&mut Context::from_waker(Waker::noop()));
        let is_over = matches!(polled, Poll::Ready(Err(_)));
        if is_spent || is_over {
            *sender = None;
        }
        !(is_spent || is_over)
    }

    fn has_room(&self) -> bool {
        let sender = self.sender.borrow();
        sender.as_ref().is_some_and(|sender| {
            let max = sender.current_max_send_streams();
            self.streams.get() < max
        })
    }

    fn begin(self: &Rc<Self>) -> Option<Lease> {
        let sender = self.sender.borrow().clone()?;
        let begun = self.begun.get();
        self.begun.set(begun + 1);
        self.streams.set(self.streams.get() + 1);
        Some(Lease {
            link: Rc::clone(self),
            sender,
            is_first: begun == 0,
        })
    }

    /// Lets no more streams begin; those under way go on.
    fn retire(&self) {
        // Dropped when it is no longer borrowed: it wakes the task.
        let sender = self.sender.borrow_mut().take();
        drop(sender);
        self.greeted.give();
    }

    /// Tells those who wait for the peer's limits when they are known.
    fn look_for_greeting(&self) {
        if self.greeted.is_given() {
            return;
        }
        let sender = self.sender.borrow();
        let known = sender
            .as_ref()
            .is_none_or(|sender| sender.current_max_send_streams() != UNKNOWN);
        if known {
            self.greeted.give();
        }
    }

    fn end(&self, why: Option<String>) {
        *self.why_over.borrow_mut() = why;
        self.retire();
    }
}

fn settings() -> client::Builder {
    let mut settings = client::Builder::new();
    settings
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_LIMIT)
        .max_send_buffer_size(SEND_BUFFER)
        .initial_max_send_streams(UNKNOWN)
        .max_concurrent_reset_streams(GIVEN_UP)
        .data_frame_budget(SMALL_FRAMES);
    settings
}

/// What a connection does until it is over.
async fn run(
    mut transport: Transport,
    pipe: Pipe,
    mut protocol: client::Connection<Pipe, Bytes>,
    link: Rc<Link>,
    send_timeout: Duration,
) {
    let protocol = poll_fn(|context| {
        let polled = Pin::new(&mut protocol).poll(context);
        link.look_for_greeting();
        polled
    });
    // What h2 says of the end, it tells each stream.
    let _ = drive(&mut transport, &pipe, send_timeout, protocol).await;
    let error = pipe.take_error();
    link.end(error.as_ref().map(explain));
    match error {
        Some(error) => transport.alert(&error).await,
        None => transport.close(Linger::NONE).await,
    }
}

fn explain(error: &TransportError) -> String {
    match error {
        TransportError::TimedOut => "upstream timed out (110: Connection timed out)".to_owned(),
        error @ TransportError::Tls(_) => error.to_string(),
        error => format!("recv() {error}"),
    }
}

/// Something that happens once, and those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    is_given: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    fn is_given(&self) -> bool {
        self.is_given.get()
    }

    fn give(&self) {
        self.is_given.set(true);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Waits until it has happened. Cancelling it does nothing.
    pub(crate) async fn given(&self) {
        poll_fn(|context| {
            if self.is_given() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|known| known.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
