//! What a request has of a backend: a connection, and a place among the
//! requests of the peer.

use std::cell::Cell;
use std::time::Instant;

use crate::net::now::now;
use crate::proxy::balance::Lease;
use crate::proxy::forward::Target;
use crate::proxy::pool::{Card, Connection, Pool};
use crate::proxy::transport::Rx;

/// Both, until the exchange is over. As in Nginx others have them sooner where
/// a whole response waits in the buffers for its client.
pub(super) struct Hold<'h> {
    pool: &'h Pool,
    lease: Option<&'h Lease>,
    card: &'h Card,
    /// Whether the backend has all of the request.
    pub(super) all_sent: Cell<bool>,
    released: Cell<Option<Instant>>,
}

impl<'h> Hold<'h> {
    pub(super) fn new(target: &Target<'h>, card: &'h Card, all_sent: bool) -> Self {
        Self {
            pool: &target.upstream.pool,
            lease: target.lease,
            card,
            all_sent: Cell::new(all_sent),
            released: Cell::new(None),
        }
    }

    /// When the backend's part ended, if that was before the client's.
    pub(super) fn released(&self) -> Option<Instant> {
        self.released.get()
    }

    /// All of the response has come: lets others have the connection, if it may
    /// serve them, or ends it; `rx` is not to be used again. Nothing happens
    /// while the backend is still being sent the request, or a second time.
    pub(super) fn release(&self, rx: &mut Rx<'_>, is_persistent: bool) {
        if self.released.get().is_some() || !self.all_sent.get() {
            return;
        }
        let now = now();
        self.released.set(Some(now));
        let is_clean = is_clean(rx);
        let transport = rx.hand_over();
        if is_persistent && is_clean {
            let connection = Connection {
                transport,
                card: self.card.clone(),
            };
            self.pool.put(Box::new(connection), now);
        }
        if let Some(lease) = self.lease {
            lease.release();
        }
    }
}

/// Whether nothing has come behind the response: bytes that were not asked for
/// must not answer the next request, whatever they are.
pub(super) fn is_clean(rx: &Rx<'_>) -> bool {
    rx.input.is_empty() && !rx.input.is_closed()
}
