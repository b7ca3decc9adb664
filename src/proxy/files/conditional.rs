//! Conditional requests, by Nginx's reading of RFC 9110 §13: a date and a list
//! of tags must both say that nothing has changed.

use crate::config::IfModifiedSince;
use crate::http::date::parse_date;
use crate::http::head::FieldId;
use crate::proxy::request::Request;

/// What a request's conditions make of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent.
    Send,
    /// The client has it: 304.
    NotModified,
    /// It is not what the client means: 412.
    Failed,
}

/// The fields that decide.
#[derive(Debug, Clone, Copy, Default)]
struct Conditions<'r> {
    if_match: Option<&'r [u8]>,
    if_none_match: Option<&'r [u8]>,
    if_modified_since: Option<&'r [u8]>,
    if_unmodified_since: Option<&'r [u8]>,
}

/// Holds the request against the file's time (Unix, seconds) and tag. What has
/// no time has always been modified.
pub(super) fn judge(request: &Request<'_>, modified: Option<i64>, etag: Option<&[u8]>) -> Verdict {
    let bytes = request.head_bytes();
    let find = |name: &[u8]| request.head.find(bytes, name).next();
    let conditions = Conditions {
        if_match: find(b"If-Match"),
        if_none_match: request.head.field(bytes, FieldId::IfNoneMatch),
        if_modified_since: request.head.field(bytes, FieldId::IfModifiedSince),
        if_unmodified_since: find(b"If-Unmodified-Since"),
    };
    let rule = request.location.files.if_modified_since;
    judge_conditions(conditions, rule, modified, etag)
}

fn judge_conditions(
    conditions: Conditions<'_>,
    rule: IfModifiedSince,
    modified: Option<i64>,
    etag: Option<&[u8]>,
) -> Verdict {
    // A date that is none lies before all others.
    let time = |date: &[u8]| parse_date(date).unwrap_or(-1);
    if let Some(date) = conditions.if_unmodified_since
        && modified.is_none_or(|modified| time(date) < modified)
    {
        return Verdict::Failed;
    }
    if let Some(list) = conditions.if_match
        && !names(list, etag, Comparison::Strong)
    {
        return Verdict::Failed;
    }
    if conditions.if_modified_since.is_none() && conditions.if_none_match.is_none() {
        return Verdict::Send;
    }
    if let Some(date) = conditions.if_modified_since {
        let date = time(date);
        let is_modified = match (rule, modified) {
            (IfModifiedSince::Off, _) | (_, None) => true,
            (IfModifiedSince::Exact, Some(modified)) => date != modified,
            (IfModifiedSince::Before, Some(modified)) => date < modified,
        };
        if is_modified {
            return Verdict::Send;
        }
    }
    if let Some(list) = conditions.if_none_match
        && !names(list, etag, Comparison::Weak)
    {
        return Verdict::Send;
    }
    Verdict::NotModified
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    /// `W/"x"` is `"x"`.
    Weak,
}

/// Whether a list of entity tags names this one. A tag of ours has no comma in
/// it, so the list can be cut at commas.
fn names(list: &[u8], etag: Option<&[u8]>, comparison: Comparison) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    list.split(|byte| *byte == b',').any(|member| {
        let member = member.trim_ascii();
        let member = match comparison {
            Comparison::Weak => member.strip_prefix(b"W/").unwrap_or(member),
            Comparison::Strong => member,
        };
        member == etag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &[u8] = b"Sun, 06 Nov 1994 08:49:38 GMT";
    const TIME: i64 = 784_111_777;

    fn judged(conditions: Conditions<'_>, rule: IfModifiedSince) -> Verdict {
        judge_conditions(conditions, rule, Some(TIME), Some(b"\"a-1\""))
    }

    #[test]
    fn dates_are_compared_as_if_modified_since_says() {
        use IfModifiedSince::{Before, Exact, Off};
        for (date, rule, verdict) in [
            (DATE, Exact, Verdict::NotModified),
            (LATER, Exact, Verdict::Send),
            (LATER, Before, Verdict::NotModified),
            (b"nonsense", Before, Verdict::Send),
            (DATE, Off, Verdict::Send),
        ] {
            let conditions = Conditions {
                if_modified_since: Some(date),
                ..Conditions::default()
            };
            assert_eq!(judged(conditions, rule), verdict);
        }
        for (date, verdict) in [
            (DATE, Verdict::Send),
            (b"nonsense", Verdict::Failed),
            (b"Sun, 06 Nov 1994 08:49:36 GMT", Verdict::Failed),
        ] {
            let conditions = Conditions {
                if_unmodified_since: Some(date),
                ..Conditions::default()
            };
            assert_eq!(judged(conditions, Exact), verdict);
        }
    }

    #[test]
    fn tags_are_compared_weakly_for_none_match_and_strongly_for_match() {
        for (list, none_match, matches) in [
            (b"*".as_slice(), Verdict::NotModified, Verdict::Send),
            (b"\"a-1\"", Verdict::NotModified, Verdict::Send),
            (b"\"x\" ,\"a-1\"", Verdict::NotModified, Verdict::Send),
            (b"W/\"a-1\"", Verdict::NotModified, Verdict::Failed),
            (b"\"a-2\"", Verdict::Send, Verdict::Failed),
            (b"\"a-1\"x", Verdict::Send, Verdict::Failed),
        ] {
            let conditions = Conditions {
                if_none_match: Some(list),
                ..Conditions::default()
            };
            assert_eq!(judged(conditions, IfModifiedSince::Exact), none_match);
            let conditions = Conditions {
                if_match: Some(list),
                ..Conditions::default()
            };
            assert_eq!(judged(conditions, IfModifiedSince::Exact), matches);
        }
    }

    #[test]
    fn a_date_and_a_list_must_agree_that_nothing_changed() {
        let conditions = Conditions {
            if_none_match: Some(b"\"a-1\""),
            if_modified_since: Some(LATER),
            ..Conditions::default()
        };
        assert_eq!(judged(conditions, IfModifiedSince::Exact), Verdict::Send);
        let conditions = Conditions {
            if_none_match: Some(b"\"a-2\""),
            if_modified_since: Some(DATE),
            ..Conditions::default()
        };
        assert_eq!(judged(conditions, IfModifiedSince::Exact), Verdict::Send);
    }
}
