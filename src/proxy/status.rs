//! `health`: whether this instance serves, as JSON for whoever watches it.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::config::Health;
use crate::http::head::Method;

use super::exchange::ResponseSink;
use super::forward::Failure;
use super::request::Request;
use super::respond;

/// Since when there has been something to ask.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// As JavaScript's `toISOString`.
const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// To be called when a worker starts, from where `uptime` counts.
pub(crate) fn started() {
    LazyLock::force(&STARTED);
}

/// Answers 200, or 503 while the worker drains.
///
/// # Errors
/// 405 for methods other than GET and HEAD; otherwise when the client cannot
/// be written to.
pub(crate) async fn answer(
    request: &mut Request<'_>,
    health: &Health,
    sink: &mut impl ResponseSink,
) -> Result<(), Failure> {
    if !matches!(request.method(), Method::Get | Method::Head) {
        return Err(Failure::Status(405));
    }
    let draining = request.worker.is_draining();
    let now = OffsetDateTime::from(SystemTime::now());
    let mut state = json!({
        "status": if draining { "draining" } else { "ok" },
        "service": health.service,
        "timestamp": now.format(TIMESTAMP).unwrap_or_default(),
        "uptime": (STARTED.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    });
    if let Some(members) = state.as_object_mut() {
        if health.upstreams {
            members.insert("upstreams".into(), upstreams(request));
        }
        if health.certificates {
            members.insert("certificates".into(), certificates(request, now));
        }
    }
    let status = if draining { 503 } else { 200 };
    let text = state.to_string();
    let content_type = b"application/json";
    respond::fixed(request, status, content_type, text.as_bytes(), None, sink)
        .await
        .map_err(|_| Failure::Aborted)
}

/// As this worker sees them.
fn upstreams(request: &Request<'_>) -> Value {
    let now = Instant::now();
    let view = request.view;
    let count = view.gateway.config.upstreams.len();
    let known = (0..count).filter_map(|id| view.upstream(id));
    // Those of a relay have no addresses of their own.
    let named = known.filter(|upstream| upstream.config.has_servers());
    let states = named.map(|upstream| {
        let present = upstream.present();
        let group = &present.group;
        let peers = group.peers().enumerate();
        let servers: Vec<Value> = peers
            .map(|(index, peer)| {
                let up = !peer.down && !group.is_benched(index, now);
                json!({
                    "address": peer.address.to_string(),
                    "status": if up { "up" } else { "down" },
                })
            })
            .collect();
        json!({ "name": upstream.config.name, "servers": servers })
    });
    states.collect()
}

fn certificates(request: &Request<'_>, now: OffsetDateTime) -> Value {
    const DAY: i64 = 86_400;
    let known = request.view.gateway.certificates.iter();
    let states = known.map(|certificate| {
        let ends = OffsetDateTime::from_unix_timestamp(certificate.not_after).ok();
        json!({
            "subject": certificate.subject,
            "notAfter": ends.and_then(|ends| ends.format(TIMESTAMP).ok()),
            "daysLeft": (certificate.not_after - now.unix_timestamp()).div_euclid(DAY),
        })
    });
    states.collect()
}
