//! What a proxy must know of field names and of the Connection field
//! (RFC 9110 §7.6.1).

use super::head::{Field, FieldId};

/// Whether two field names are one to a backend: ASCII case does not count, and
/// `_` is `-`, because CGI, WSGI and their kin turn both into `_`.
#[must_use]
pub fn same_field_name(a: &[u8], b: &[u8]) -> bool {
    fn fold(byte: u8) -> u8 {
        match byte {
            b'_' => b'-',
            other => other.to_ascii_lowercase(),
        }
    }
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| fold(*a) == fold(*b))
}

/// Whether Nginx passes a field of this name on while `ignore_invalid_headers`
/// is on: letters, digits and hyphens, and underscores where
/// `underscores_in_headers` allows them. Other names are dropped.
#[must_use]
pub fn is_ordinary_name(name: &[u8], underscores: bool) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || *byte == b'-' || (underscores && *byte == b'_')
        })
}

/// Fields that concern one connection and are never forwarded, whether or not
/// Connection names them. Upgrade and TE are among them: a proxy that wants
/// them beyond itself writes its own.
#[must_use]
pub fn is_hop_by_hop(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::Connection
            | FieldId::KeepAlive
            | FieldId::ProxyConnection
            | FieldId::ProxyAuthenticate
            | FieldId::ProxyAuthorization
            | FieldId::Te
            | FieldId::Trailer
            | FieldId::TransferEncoding
            | FieldId::Upgrade
            | FieldId::Http2Settings
    )
}

/// The members of a comma-separated list (RFC 9110 §5.6.1), trimmed, empty ones
/// left out. Quoted strings are not looked into: none of the fields read this
/// way has them.
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// All Connection fields of a message, read once.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionOptions<'a> {
    /// `close` was said.
    pub close: bool,
    /// `keep-alive` was said.
    pub keep_alive: bool,
    /// `upgrade` was said.
    pub upgrade: bool,
    /// Whether anything else was, so that the common message compares nothing.
    others: bool,
    fields: &'a [Field],
    buf: &'a [u8],
}

impl<'a> ConnectionOptions<'a> {
    /// Reads them.
    #[must_use]
    pub fn of(fields: &'a [Field], buf: &'a [u8]) -> Self {
        let mut options = Self {
            close: false,
            keep_alive: false,
            upgrade: false,
            others: false,
            fields,
            buf,
        };
        // In two loops, not by `members`: each message comes by here.
        for field in fields {
            if field.id == FieldId::Connection {
                list_members(field.value.of(buf)).for_each(|member| options.note(member));
            }
        }
        options
    }

    fn note(&mut self, member: &[u8]) {
        if member.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if member.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if member.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else {
            self.others = true;
        }
    }

    /// Whether Connection names this field, so that it must not be forwarded.
    ///
    /// A client cannot have the fields removed that the next hop decides by:
    /// those for which [`is_never_connection_option`] holds, and whatever
    /// `protected` says (identity headers, and all that the proxy sets itself).
    #[must_use]
    pub fn names(&self, field_name: &[u8], protected: impl Fn(&[u8]) -> bool) -> bool {
        self.others
            && self
                .members()
                .any(|member| same_field_name(member, field_name))
            && !is_never_connection_option(field_name)
            && !protected(field_name)
    }

    /// Every option, in order.
    pub fn members(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let buf = self.buf;
        self.fields
            .iter()
            .filter(|field| field.id == FieldId::Connection)
            .flat_map(move |field| list_members(field.value.of(buf)))
    }
}

/// Fields that Connection cannot remove: those that routing, framing and the
/// backend's idea of the client rest on.
#[must_use]
pub fn is_never_connection_option(field_name: &[u8]) -> bool {
    const NAMES: [&[u8]; 11] = [
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"authorization",
        b"cookie",
        b"cache-control",
        b"x-real-ip",
        b"forwarded",
        b"via",
        b"early-data",
    ];
    const X_FORWARDED: &[u8] = b"x-forwarded-";
    NAMES.iter().any(|name| same_field_name(name, field_name))
        || field_name
            .get(..X_FORWARDED.len())
            .is_some_and(|prefix| same_field_name(prefix, X_FORWARDED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Span;

    fn connection(values: &[&str]) -> (Vec<Field>, Vec<u8>) {
        let mut buf = Vec::new();
        let fields = values
            .iter()
            .map(|value| {
                let start = buf.len();
                buf.extend_from_slice(value.as_bytes());
                Field {
                    name: Span::default(),
                    value: Span::new(start, buf.len()),
                    id: FieldId::Connection,
                }
            })
            .collect();
        (fields, buf)
    }

    #[test]
    fn an_underscore_is_a_hyphen_and_case_does_not_count() {
        assert!(same_field_name(b"X_Client-Cert", b"x-client_cert"));
        assert!(!same_field_name(b"X-Client", b"X-Clients"));
        assert!(!same_field_name(b"X.Client", b"X-Client"));
    }

    #[test]
    fn options_are_gathered_from_every_connection_field() {
        let (fields, buf) = connection(&["Keep-Alive, , x-secret", "UPGRADE"]);
        let options = ConnectionOptions::of(&fields, &buf);
        assert!(options.keep_alive && options.upgrade && !options.close);
        assert!(options.names(b"X-Secret", |_| false));
        assert!(options.names(b"x_secret", |_| false));
        assert!(!options.names(b"X-Other", |_| false));
    }

    #[test]
    fn a_client_cannot_have_routing_framing_or_identity_removed() {
        let (fields, buf) = connection(&[
            "close, host, content-length, x-forwarded-for, X_Forwarded_Proto, x-real-ip, x-ssl-cert",
        ]);
        let options = ConnectionOptions::of(&fields, &buf);
        let protected = |name: &[u8]| same_field_name(name, b"X-SSL-Cert");
        for name in [
            &b"Host"[..],
            b"Content-Length",
            b"X-Forwarded-For",
            b"X-Forwarded-Proto",
            b"X-Real-IP",
            b"X-SSL-Cert",
        ] {
            assert!(!options.names(name, protected));
        }
        assert!(options.names(b"X-SSL-Cert", |_| false));
    }

    #[test]
    fn names_that_nginx_ignores_are_told_from_ordinary_ones() {
        assert!(is_ordinary_name(b"X-Real-IP", false));
        assert!(!is_ordinary_name(b"X_Real_IP", false));
        assert!(is_ordinary_name(b"X_Real_IP", true));
        assert!(!is_ordinary_name(b"X.Real", true));
        assert!(!is_ordinary_name(b"", true));
    }
}
