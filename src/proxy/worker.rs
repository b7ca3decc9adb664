//! What one worker owns: its view of the published configuration, its
//! upstream connections, its log buffers, its clock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use crate::config::{Upstream, UpstreamId};
use crate::http::head::Field;
use crate::net::deadlines;
use crate::net::spawn::sleep;
use crate::telemetry::access_log::AccessBuffer;
use crate::telemetry::clock::Clock;
use crate::telemetry::metrics::{Phase, UpstreamMetrics, WorkerMetrics};
use crate::telemetry::repeats;
use crate::tls::server::Shown;
use crate::tls::upstream::UpstreamTls;

use super::balance::Group;
use super::balance::members::Members;
use super::balance::sessions::Sessions;
use super::certificates::Certificates;
use super::gateway::Gateway;
use super::health::Checks;
use super::lookups::Lookups;
use super::measure::{self, PeerCells, ViewMetrics};
use super::pool::Pool;
use super::status;
use super::streams::StreamPool;

/// Connections of the process, for `$connection` and the error log's `*N`.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Deadlines nudged in one go, of which a connection has two: at the worst a
/// millisecond's work.
const REVIEWED_AT_ONCE: usize = 16;
/// What is in between for everybody else.
const REVIEW_PAUSE: Duration = Duration::from_millis(1);

/// One worker's state, shared by its tasks.
#[derive(Debug)]
pub struct Worker {
    published: RefCell<Cache<Arc<ArcSwap<Gateway>>, Arc<Gateway>>>,
    view: RefCell<Rc<View>>,
    /// Refreshed by the worker's ticker and at every request.
    pub(crate) clock: RefCell<Clock>,
    /// Written by this worker only.
    pub metrics: Arc<WorkerMetrics>,
    draining: Cell<bool>,
    connections: Cell<usize>,
    handshakes: Cell<usize>,
    /// The same by [`network`]; none of them is zero.
    handshakes_by_client: RefCell<HashMap<IpAddr, usize>>,
    last_sweep: Cell<Instant>,
    /// Calls of [`Worker::review_connections`].
    reviews: Cell<u64>,
    /// For the next response's head.
    spare_fields: RefCell<Vec<Field>>,
}

/// A published configuration with what this worker adds to it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) gateway: Arc<Gateway>,
    upstreams: Vec<UpstreamState>,
    /// `None` where nobody's health is checked.
    checks: Option<Checks>,
    /// `None` where no server is a name.
    lookups: Option<Lookups>,
    pub(crate) access: Vec<RefCell<AccessBuffer>>,
    pub(crate) metrics: ViewMetrics,
    /// Of upstreams, where variables name them.
    pub(super) certificates: RefCell<Certificates<Arc<UpstreamTls>>>,
    /// Of server blocks, where they do.
    pub(super) served_certificates: RefCell<Certificates<Arc<Shown>>>,
}

/// An upstream as this worker sees it.
#[derive(Debug)]
pub(crate) struct UpstreamState {
    pub(crate) id: UpstreamId,
    pub(crate) config: Arc<Upstream>,
    present: RefCell<Rc<Present>>,
    /// `None` where the servers are always the same.
    followed: Option<Followed>,
    pub(crate) pool: Pool,
    /// For those that are spoken to by HTTP/2.
    pub(crate) streams: StreamPool,
    pub(crate) metrics: Arc<UpstreamMetrics>,
}

/// The peers of an upstream as they are at a time.
#[derive(Debug)]
pub(crate) struct Present {
    members: Arc<Members>,
    pub(crate) group: Rc<Group>,
    pub(crate) cells: PeerCells,
}

/// Where it is seen that they have changed.
#[derive(Debug)]
struct Followed {
    members: RefCell<Cache<Arc<ArcSwap<Members>>, Arc<Members>>>,
    sessions: Option<Arc<Sessions>>,
    metrics: Arc<WorkerMetrics>,
}

impl Worker {
    /// A worker that follows what is published.
    pub fn new(published: Arc<ArcSwap<Gateway>>) -> Rc<Self> {
        status::started();
        let mut published = Cache::new(published);
        let gateway = published.load();
        let metrics = gateway.metrics.register(measure::labels());
        let view = Rc::new(View::new(Arc::clone(gateway), None, &metrics));
        Rc::new(Self {
            published: RefCell::new(published),
            view: RefCell::new(view),
            clock: RefCell::new(Clock::new()),
            metrics,
            draining: Cell::new(false),
            connections: Cell::new(0),
            handshakes: Cell::new(0),
            handshakes_by_client: RefCell::default(),
            last_sweep: Cell::new(Instant::now()),
            reviews: Cell::new(0),
            spare_fields: RefCell::default(),
        })
    }

    /// The present configuration. Looks at the published pointer each time,
    /// which costs one load of a line that nobody writes to.
    pub(crate) fn view(&self) -> Rc<View> {
        let mut published = self.published.borrow_mut();
        let gateway = published.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(gateway, &view.gateway) {
            let new = View::new(Arc::clone(gateway), Some(&view), &self.metrics);
            view.flush_logs();
            *view = Rc::new(new);
        }
        Rc::clone(&view)
    }

    /// What the ticker does every [`deadlines::TICK`]: time passes, expired
    /// waits end, log lines leave, stale upstream connections are closed.
    pub fn tick(&self) {
        self.clock.borrow_mut().refresh();
        deadlines::tick();
        let view = self.view();
        let now = Instant::now();
        for buffer in &view.access {
            buffer.borrow_mut().flush_due(now);
        }
        if let Some(checks) = &view.checks
            && !self.draining.get()
        {
            checks.tick(&view.gateway, now);
        }
        if let Some(lookups) = &view.lookups
            && !self.draining.get()
        {
            lookups.tick(&view.gateway, now);
        }
        for upstream in &view.upstreams {
            upstream.pool.trim(now);
        }
        if now.duration_since(self.last_sweep.get()).as_secs() >= 1 {
            self.last_sweep.set(now);
            for upstream in &view.upstreams {
                upstream.pool.sweep(now);
                upstream.streams.sweep(now);
                upstream.sample(now);
            }
            view.certificates.borrow_mut().sweep(now);
            view.served_certificates.borrow_mut().sweep(now);
            measure::sample(&self.metrics);
            repeats::report();
        }
    }

    /// Has every connection look at what is published now, idle ones at once
    /// and the others when they are idle: those whose client is no longer
    /// welcome end, the rest let go of what was published before.
    ///
    /// Judging a chain anew takes a tenth of a millisecond, so they do it a few
    /// at a time. Cancelling this leaves the rest to their next request, and so
    /// does a later call, which begins anew.
    pub async fn review_connections(self: Rc<Self>) {
        let round = self.reviews.get() + 1;
        self.reviews.set(round);
        let mut next = Some(0);
        while let Some(from) = next
            && self.reviews.get() == round
        {
            next = deadlines::nudge(from, REVIEWED_AT_ONCE);
            sleep(REVIEW_PAUSE).await;
        }
    }

    /// Room for the fields of a response's head, and for none while another
    /// response has it.
    pub(crate) fn take_fields(&self) -> Vec<Field> {
        self.spare_fields.take()
    }

    /// Gives it back.
    pub(crate) fn keep_fields(&self, mut fields: Vec<Field>) {
        fields.clear();
        self.spare_fields.replace(fields);
    }

    /// Starts to drain: idle connections end now, the others after the
    /// response in flight, upstream connections when they are idle.
    pub fn drain(&self) {
        self.draining.set(true);
        deadlines::expire_idle();
        for upstream in &self.view().upstreams {
            upstream.pool.clear();
            upstream.streams.clear();
        }
    }

    /// Whether [`Worker::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Open client connections.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Hands the log lines that are waiting to the writer.
    pub fn flush_logs(&self) {
        self.view.borrow().flush_logs();
    }

    /// Counts a client connection for as long as the result lives, and gives
    /// it its number. It begins in this phase.
    pub(crate) fn register(self: &Rc<Self>, phase: Phase) -> Registration {
        self.metrics.handled.increment();
        self.metrics.move_phase(None, Some(phase));
        self.connections.set(self.connections.get() + 1);
        let serial = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
        Registration {
            worker: Rc::clone(self),
            serial,
            phase: Cell::new(phase),
        }
    }

    /// Counts a handshake in flight, unless there are `limit` already, or
    /// `per_client` of this client's.
    pub(crate) fn begin_handshake(
        self: &Rc<Self>,
        client: Option<IpAddr>,
        limit: usize,
        per_client: usize,
    ) -> Option<HandshakeSlot> {
        let count = self.handshakes.get();
        let client = client.map(network);
        if count >= limit {
            return None;
        }
        if let Some(client) = client {
            let mut by_client = self.handshakes_by_client.borrow_mut();
            let count = by_client.entry(client).or_default();
            if *count >= per_client {
                return None;
            }
            *count += 1;
        }
        self.handshakes.set(count + 1);
        Some(HandshakeSlot {
            worker: Rc::clone(self),
            client,
        })
    }
}

/// A connection being counted.
#[derive(Debug)]
pub(crate) struct Registration {
    worker: Rc<Worker>,
    pub(crate) serial: u64,
    phase: Cell<Phase>,
}

impl Registration {
    /// What the connection is busy with from now on.
    pub(crate) fn enter(&self, phase: Phase) {
        let before = self.phase.replace(phase);
        self.worker.metrics.move_phase(Some(before), Some(phase));
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.worker.metrics.move_phase(Some(self.phase.get()), None);
        self.worker
            .connections
            .set(self.worker.connections.get() - 1);
    }
}

/// A handshake being counted.
#[derive(Debug)]
pub(crate) struct HandshakeSlot {
    worker: Rc<Worker>,
    client: Option<IpAddr>,
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        let worker = &self.worker;
        worker.handshakes.set(worker.handshakes.get() - 1);
        let mut by_client = worker.handshakes_by_client.borrow_mut();
        if let Some(Entry::Occupied(mut count)) = self.client.map(|client| by_client.entry(client))
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What one client has for itself: an IPv4 address, or the /64 that an IPv6
/// client may take any address of.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

impl UpstreamState {
    /// One for the sake of a single request: nothing of it is kept or counted.
    pub(crate) fn transient(config: Arc<Upstream>) -> Self {
        let members = Arc::new(Members::of(&config));
        let present = Present {
            group: Group::new(&config, &members, None),
            cells: PeerCells::default(),
            members,
        };
        Self {
            id: UpstreamId::MAX,
            present: RefCell::new(Rc::new(present)),
            followed: None,
            pool: Pool::new(&config),
            streams: StreamPool::new(&config),
            metrics: Arc::default(),
            config,
        }
    }

    /// Its peers; what is begun with them ends with them.
    pub(crate) fn present(&self) -> Rc<Present> {
        if let Some(followed) = &self.followed {
            self.follow(followed);
        }
        Rc::clone(&self.present.borrow())
    }

    /// Takes up who is there now, if that has changed.
    fn follow(&self, followed: &Followed) {
        let mut members = followed.members.borrow_mut();
        let members = members.load();
        let before = Rc::clone(&self.present.borrow());
        if Arc::ptr_eq(members, &before.members) {
            return;
        }
        let group = Group::new(&self.config, members, followed.sessions.as_ref());
        group.go_on_from(&before.group);
        self.pool.keep_only(&group);
        self.streams.keep_only(&group);
        let present = Present {
            cells: PeerCells::new(&followed.metrics, &self.config.name, &group),
            group,
            members: Arc::clone(members),
        };
        *self.present.borrow_mut() = Rc::new(present);
    }

    /// What is looked at now and then.
    fn sample(&self, now: Instant) {
        let idle = self.pool.len() + self.streams.len();
        self.metrics.idle.set(idle as u64);
        let present = self.present();
        present.cells.sample(&present.group, now);
    }
}

impl View {
    fn new(gateway: Arc<Gateway>, older: Option<&Self>, metrics: &Arc<WorkerMetrics>) -> Self {
        let old: HashMap<&str, &UpstreamState> = older
            .iter()
            .flat_map(|view| &view.upstreams)
            .map(|upstream| (&*upstream.config.name, upstream))
            .collect();
        let upstreams = gateway.config.upstreams.iter().enumerate();
        let upstreams = upstreams.map(|(id, config)| {
            let pool = Pool::new(config);
            let streams = StreamPool::new(config);
            let (members, shared) = gateway.registry.join(id, config);
            let sessions = gateway.registry.sessions(id);
            let group = Group::new(config, &members, sessions);
            if let Some(old) = old.get(&*config.name) {
                pool.inherit(&old.pool, &group);
                streams.inherit(&old.streams, &group);
            }
            let followed = shared.filter(|_| config.named.is_some());
            let present = Present {
                cells: PeerCells::new(metrics, &config.name, &group),
                group,
                members,
            };
            UpstreamState {
                id,
                config: Arc::clone(config),
                present: RefCell::new(Rc::new(present)),
                followed: followed.map(|members| Followed {
                    members: RefCell::new(Cache::new(Arc::clone(members))),
                    sessions: sessions.cloned(),
                    metrics: Arc::clone(metrics),
                }),
                pool,
                streams,
                metrics: metrics.upstream(&config.name),
            }
        });
        let upstreams = upstreams.collect();
        let access = gateway
            .access_sinks()
            .iter()
            .zip(gateway.access_buffering())
            .map(|((_, sink), buffering)| {
                RefCell::new(AccessBuffer::new(sink.clone(), *buffering))
            });
        let access = access.collect();
        let checks = Checks::new(&gateway);
        let lookups = Lookups::new(&gateway);
        Self {
            checks,
            lookups,
            certificates: RefCell::default(),
            served_certificates: RefCell::default(),
            metrics: ViewMetrics::new(metrics, &gateway),
            gateway,
            upstreams,
            access,
        }
    }

    pub(crate) fn upstream(&self, id: UpstreamId) -> Option<&UpstreamState> {
        self.upstreams.get(id)
    }

    fn flush_logs(&self) {
        for buffer in &self.access {
            buffer.borrow_mut().flush();
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Requests that ended under an older configuration logged here.
        self.flush_logs();
    }
}
