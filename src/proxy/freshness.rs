//! `expires`: how long a client may keep a response.

use crate::config::{Expires, ExpiresWhen, Freshness};
use crate::http::date::{DATE_LEN, imf_fixdate};

use super::request::Request;
use super::variables::expand_to_vec;

/// The values of Expires and Cache-Control.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) expires: [u8; DATE_LEN],
    pub(crate) cache_control: String,
}

/// What `expires` says of a response that was last modified at this Unix time;
/// `None` if it says nothing.
pub(crate) fn terms(
    expires: &Expires,
    last_modified: Option<i64>,
    request: &Request<'_>,
) -> Option<Terms> {
    let freshness = match &expires.when {
        ExpiresWhen::Fixed(freshness) => *freshness,
        ExpiresWhen::Evaluated(value) => {
            // As in Nginx a value that makes no sense says nothing.
            Freshness::parse(&expand_to_vec(value, request), expires.modified).ok()?
        }
    };
    let clock = request.worker.clock.borrow();
    let now = clock.unix_ms() / 1000;
    let base = last_modified.filter(|_| expires.modified);
    of(freshness, now, base, |second| clock.next_local(second))
}

fn of(
    freshness: Freshness,
    now: u64,
    last_modified: Option<i64>,
    next_local: impl Fn(u64) -> u64,
) -> Option<Terms> {
    const EPOCH: &[u8; DATE_LEN] = b"Thu, 01 Jan 1970 00:00:01 GMT";
    const FAR: &[u8; DATE_LEN] = b"Thu, 31 Dec 2037 23:55:55 GMT";
    let until = |moment: i64, stale: bool| {
        let age = moment.saturating_sub_unsigned(now);
        Terms {
            expires: imf_fixdate(u64::try_from(moment).unwrap_or(0)),
            cache_control: if stale || age < 0 {
                "no-cache".to_owned()
            } else {
                format!("max-age={age}")
            },
        }
    };
    Some(match freshness {
        Freshness::Off => return None,
        Freshness::Epoch => Terms {
            expires: *EPOCH,
            cache_control: "no-cache".to_owned(),
        },
        Freshness::Max => Terms {
            expires: *FAR,
            cache_control: "max-age=315360000".to_owned(),
        },
        Freshness::Daily(second) => until(next_local(second).cast_signed(), false),
        Freshness::For(0) => until(now.cast_signed(), false),
        Freshness::For(seconds) => {
            let from = last_modified.unwrap_or(now.cast_signed());
            until(from.saturating_add(seconds), seconds < 0)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(freshness: Freshness, last_modified: Option<i64>) -> (String, String) {
        let terms = of(freshness, 784_111_777, last_modified, |second| {
            784_111_777 + second
        })
        .unwrap();
        let expires = String::from_utf8(terms.expires.to_vec()).unwrap();
        (expires, terms.cache_control)
    }

    #[test]
    fn the_terms_are_those_of_nginx() {
        for (freshness, modified, expires, cache_control) in [
            (
                Freshness::For(3600),
                None,
                "Sun, 06 Nov 1994 09:49:37 GMT",
                "max-age=3600",
            ),
            (
                Freshness::For(-1),
                None,
                "Sun, 06 Nov 1994 08:49:36 GMT",
                "no-cache",
            ),
            (
                Freshness::For(0),
                Some(1),
                "Sun, 06 Nov 1994 08:49:37 GMT",
                "max-age=0",
            ),
            (
                Freshness::For(60),
                Some(784_111_747),
                "Sun, 06 Nov 1994 08:50:07 GMT",
                "max-age=30",
            ),
            (
                Freshness::For(60),
                Some(784_111_700),
                "Sun, 06 Nov 1994 08:49:20 GMT",
                "no-cache",
            ),
            (
                Freshness::Daily(23),
                None,
                "Sun, 06 Nov 1994 08:50:00 GMT",
                "max-age=23",
            ),
            (
                Freshness::Epoch,
                None,
                "Thu, 01 Jan 1970 00:00:01 GMT",
                "no-cache",
            ),
            (
                Freshness::Max,
                None,
                "Thu, 31 Dec 2037 23:55:55 GMT",
                "max-age=315360000",
            ),
        ] {
            assert_eq!(
                said(freshness, modified),
                (expires.to_owned(), cache_control.to_owned()),
                "{freshness:?}"
            );
        }
        assert_eq!(of(Freshness::Off, 1, None, |second| second), None);
    }
}
