//! HTTP/2 connections to an upstream, each shared by many requests at once,
//! per worker: as few as the peer's limits allow.
//!
//! ```text
//! request ─ pick ─→ Lease ── one stream ──┐
//! request ─ pick ─→ Lease ── one stream ──┤ Link ── Mux ── task ── socket
//! request ─ pick ─→ Wait                  ┘
//! ```
//!
//! Who finds no connection makes one, and who comes while one is being made
//! waits for it; until the peer has said how many streams it takes
//! (RFC 9113 §6.5.2), that is one.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::config::{Upstream, UpstreamAddress};
use crate::http::h2::connection::{Broken, Gone, Limits as Granted, Why};
use crate::http::h2::fields::Draft;
use crate::http::h2::flow::MAX_WINDOW;
use crate::http::h2::frame::Reason;
use crate::http::h2::hpack::Encoder;
use crate::net::spawn::spawn;

use super::balance::Group;
use super::h2::drive::{Ended, Side, drive};
use super::h2::mux::Mux;
use super::h2::slot::Slot;
use super::pool::{Connection, Key, Limits, LinkFacts, TlsKeyRef};
use super::transport::{Linger, Transport, TransportError};

/// What a peer is granted.
const GRANTED: Granted = Granted {
    // It begins none.
    streams: 0,
    // As much as a fast client takes in one go, for each stream that a slow one
    // holds up.
    window: 256 << 10,
    // Not limited, because whatever one slow client left of it would be all that
    // the others have.
    connection_window: MAX_WINDOW,
    list: 64 << 10,
};

thread_local! {
    /// What an answer's fields are noted in.
    static DRAFT: RefCell<Draft> = RefCell::new(Draft::of_answers());
}

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
            } else if link.has_room() {
                return Pick::Stream(link.lease());
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
    pub(crate) fn share(self, connection: Connection, send_timeout: Duration) -> Lease {
        let link = Link::open(connection, self.pool.limits, send_timeout);
        let lease = link.lease();
        self.pool.open.borrow_mut().push(link);
        lease
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
pub(crate) fn for_one_request(
    connection: Connection,
    pool: &StreamPool,
    send_timeout: Duration,
) -> Lease {
    let link = Link::open(connection, pool.limits, send_timeout);
    let lease = link.lease();
    link.retire();
    lease
}

/// A stream's share in a connection, which stays for as long as it is held.
pub(crate) struct Lease {
    link: Rc<Link>,
    is_first: bool,
}

impl Lease {
    /// Begins the stream with a request, whose block of fields `write` makes.
    ///
    /// # Errors
    /// [`Gone`]: the peer wants no more streams, or none now, or the connection
    /// is over.
    pub(super) fn begin(
        &self,
        ends: bool,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Result<Slot, Gone> {
        let (stream, lane) = self.link.mux.begin(ends, write)?;
        Ok(Slot::new(Rc::clone(&self.link.mux), stream, lane))
    }

    /// Whether the connection is over.
    pub(crate) fn is_over(&self) -> bool {
        self.link.mux.is_over()
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
        if left > 0 {
            return;
        }
        if link.is_retired.get() {
            // It was waited for.
            link.mux.wake();
        } else {
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
    mux: Rc<Mux>,
    /// No more streams are to begin. Without leases it then says goodbye.
    is_retired: Cell<bool>,
    /// Leases.
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
    fn open(connection: Connection, limits: Limits, send_timeout: Duration) -> Rc<Self> {
        let (mut transport, key, facts) = connection.into_parts();
        let now = Instant::now();
        let link = Rc::new(Self {
            key,
            facts,
            limits,
            opened: now,
            mux: Rc::new(Mux::client(GRANTED, transport.tx().gaps())),
            is_retired: Cell::new(false),
            streams: Cell::new(0),
            begun: Cell::new(0),
            idle_since: Cell::new(now),
            greeted: Rc::default(),
            why_over: RefCell::default(),
        });
        let panicked = Rc::clone(&link);
        let on_panic = move |message: &str| panicked.end(Some(message.to_owned()), None);
        spawn(run(transport, Rc::clone(&link), send_timeout), on_panic);
        link
    }

    /// Whether streams may begin on it at all, room apart.
    fn takes_streams(&self, now: Instant) -> bool {
        let is_spent = self.begun.get() >= self.limits.requests
            || now.duration_since(self.opened) >= self.limits.lifetime;
        if is_spent || !self.mux.takes_streams() {
            self.retire();
        }
        !self.is_retired.get()
    }

    fn has_room(&self) -> bool {
        // One, until the peer has said more.
        let most = self.mux.most_streams().unwrap_or(1);
        self.streams.get() < most as usize
    }

    fn lease(self: &Rc<Self>) -> Lease {
        let begun = self.begun.get();
        self.begun.set(begun + 1);
        self.streams.set(self.streams.get() + 1);
        Lease {
            link: Rc::clone(self),
            is_first: begun == 0,
        }
    }

    /// Lets no more streams begin; those under way go on.
    fn retire(&self) {
        if !self.is_retired.replace(true) {
            self.greeted.give();
            self.mux.wake();
        }
    }

    /// It is over, and so are its streams.
    fn end(&self, why_over: Option<String>, why: Option<Why>) {
        self.why_over.replace(why_over);
        self.mux.end(why);
        self.retire();
    }
}

/// What a connection does of its own accord.
struct Backend<'l> {
    link: &'l Link,
    /// It has said goodbye.
    has_left: bool,
    /// Since it became idle, memory has been given back.
    is_trimmed: bool,
}

impl Side for Backend<'_> {
    fn take_in(&mut self, input: &[u8]) -> Result<usize, Broken> {
        let mux = &self.link.mux;
        let mut used = 0;
        // Nobody opens a stream but we.
        DRAFT.with_borrow_mut(|draft| mux.take_in(input, &mut used, mux.elapsed(), draft))?;
        if mux.most_streams().is_some() {
            self.link.greeted.give();
        }
        Ok(used)
    }

    fn look_at_clock(&mut self, _: &Context<'_>) -> Option<Ended> {
        let is_idle = self.link.streams.get() == 0;
        if is_idle && self.link.is_retired.get() && !self.has_left {
            self.has_left = true;
            self.link.mux.go_away(Reason::NoError);
        }
        None
    }

    fn arm(&mut self, _: &Context<'_>) {
        let is_idle = self.link.streams.get() == 0;
        if is_idle && !self.is_trimmed {
            self.link.mux.trim();
        }
        self.is_trimmed = is_idle;
    }
}

/// What a connection does until it is over.
async fn run(mut transport: Transport, link: Rc<Link>, send_timeout: Duration) {
    let side = RefCell::new(Backend {
        link: &link,
        has_left: false,
        is_trimmed: false,
    });
    let (rx, tx) = transport.split();
    let ended = drive(&side, &link.mux, rx, tx, send_timeout).await;
    match ended {
        Ended::Closed | Ended::Left => {
            link.end(None, None);
            transport.close(Linger::NONE).await;
        }
        Ended::Broken(broken) => {
            link.end(None, Some(Why::Broken(broken.reason)));
            transport.close(Linger::NONE).await;
        }
        Ended::Failed(call, error) => {
            link.end(Some(explain(call, &error)), None);
            transport.alert(&error).await;
        }
    }
}

fn explain(call: &str, error: &TransportError) -> String {
    match error {
        TransportError::TimedOut => "upstream timed out (110: Connection timed out)".to_owned(),
        error @ TransportError::Tls(_) => error.to_string(),
        error => format!("{call} {error}"),
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
        if self.is_given.replace(true) {
            return;
        }
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
