//! The access phase: address, password, another location's word, and whom `satisfy` lets in on the
//! strength of which.

use crate::config::{Access, RuleEffect, Satisfy};
use crate::telemetry::error_log::Level;

use super::auth_basic;
use super::auth_request;
use super::exchange::BodySource;
use super::forward::Failure;
use super::log;
use super::patience::wait;
use super::request::Request;

/// What one check says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opinion {
    /// Nothing.
    None,
    LetIn,
    /// With this status, unless `satisfy any` and another check let it in.
    KeepOut(u16),
    /// The check itself failed, and nobody is let in.
    Fail(u16),
}

/// Holds a request against the checks of its location.
///
/// # Errors
/// The status that it is refused with; or the client is gone.
///
/// Cancelling it leaves the request without an answer.
pub(super) async fn check(
    request: &mut Request<'_>,
    access: &Access,
    body: &mut impl BodySource,
) -> Result<(), Failure> {
    let mut ballot = Ballot {
        satisfy: access.satisfy,
        refusal: None,
    };
    if ballot.count(by_address(request, access))? {
        return Ok(());
    }
    if let Some(auth) = &access.auth_basic {
        // Boxed, for the requests that come without.
        let opinion = Box::pin(auth_basic::check(request, auth)).await;
        delay(request, access, opinion, body).await?;
        if ballot.count(opinion)? {
            request.answer.challenges.clear();
            return Ok(());
        }
    }
    if let Some(auth) = &access.auth_request {
        let opinion = Box::pin(auth_request::check(request, auth, body)).await?;
        delay(request, access, opinion, body).await?;
        if ballot.count(opinion)? {
            request.answer.challenges.clear();
            return Ok(());
        }
    }
    let Some(status) = ballot.refusal else {
        return Ok(());
    };
    if status == 403 {
        log::request_error(
            request,
            Level::Error,
            format_args!("access forbidden by rule"),
        );
    }
    Err(Failure::Status(status))
}

/// `auth_delay`.
async fn delay(
    request: &Request<'_>,
    access: &Access,
    opinion: Opinion,
    body: &mut impl BodySource,
) -> Result<(), Failure> {
    if opinion == Opinion::KeepOut(401) && !access.auth_delay.is_zero() {
        log::request_error(
            request,
            Level::Notice,
            format_args!("delaying unauthorized request"),
        );
        wait(request, access.auth_delay, body).await?;
    }
    Ok(())
}

/// How the checks have voted so far.
struct Ballot {
    satisfy: Satisfy,
    /// With `any`: the status if nobody lets it in.
    refusal: Option<u16>,
}

impl Ballot {
    /// Whether the request is let in without further ado.
    fn count(&mut self, opinion: Opinion) -> Result<bool, Failure> {
        match (opinion, self.satisfy) {
            (Opinion::Fail(status), _) | (Opinion::KeepOut(status), Satisfy::All) => {
                Err(Failure::Status(status))
            }
            (Opinion::KeepOut(status), Satisfy::Any) => {
                // To be asked for a password is more use than a plain no.
                if self.refusal != Some(401) {
                    self.refusal = Some(status);
                }
                Ok(false)
            }
            (Opinion::LetIn, Satisfy::Any) => Ok(true),
            (Opinion::LetIn, Satisfy::All) | (Opinion::None, _) => Ok(false),
        }
    }
}

fn by_address(request: &Request<'_>, access: &Access) -> Opinion {
    let Some(rules) = &access.rules else {
        return Opinion::None;
    };
    match rules.judge(request.client().raw_ip()) {
        None => Opinion::None,
        Some(RuleEffect::Allow) => Opinion::LetIn,
        Some(RuleEffect::Deny) => {
            if access.satisfy == Satisfy::All {
                log::request_error(
                    request,
                    Level::Error,
                    format_args!("access forbidden by rule"),
                );
            }
            Opinion::KeepOut(403)
        }
    }
}
