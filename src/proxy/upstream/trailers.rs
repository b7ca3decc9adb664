//! Which of the fields behind a request's body a backend gets.

use crate::config::{ConnectionLimits, Proxy};
use crate::http::head::FieldId;
use crate::http::headers::{ConnectionOptions, same_field_name};
use crate::http::trailers::{Trailers, is_never_trailer};
use crate::proxy::request::{Request, takes_field};
use crate::proxy::worker::View;

/// What is known before the body of whatever may come behind it.
pub(super) struct TrailerFilter<'r> {
    view: &'r View,
    proxy: &'r Proxy,
    /// What Connection names.
    hop_by_hop: Vec<Box<[u8]>>,
    limits: &'r ConnectionLimits,
}

impl<'r> TrailerFilter<'r> {
    pub(super) fn of<'a: 'r>(request: &Request<'a>, proxy: &'r Proxy) -> Self {
        let options = ConnectionOptions::of(&request.head.fields, request.head_bytes());
        Self {
            view: request.view,
            proxy,
            hop_by_hop: options.members().map(Box::from).collect(),
            limits: request.limits(),
        }
    }

    /// The fields that pass: those that may stand behind a body at all, and that
    /// would pass before it.
    pub(super) fn passing<'t>(
        &self,
        trailers: &'t Trailers,
    ) -> impl Iterator<Item = (&'t [u8], &'t [u8])> {
        trailers.iter().filter(|(name, _)| self.passes(name))
    }

    fn passes(&self, name: &[u8]) -> bool {
        let is_same = |other: &[u8]| same_field_name(other, name);
        self.proxy.filters.pass_request_headers
            && !is_never_trailer(name)
            && takes_field(self.limits, FieldId::of(name), name)
            && !self.proxy.set_headers.iter().any(|set| is_same(&set.name))
            && !self.hop_by_hop.iter().any(|named| is_same(named))
            && !self.view.gateway.asserts(name)
    }
}
