//! Where the status of a certificate is asked for.

use super::url::{self, Target, strip_prefix_any_case};

/// An OCSP responder: an `http://` URL, from a directive or a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Responder {
    /// A name or address; an IPv6 address without its brackets.
    pub host: Box<str>,
    /// By default 80.
    pub port: u16,
    /// `Host`, as the URL has it.
    pub authority: Box<str>,
    /// The path, ending in `/`, behind which a request goes.
    pub path: Box<str>,
}

impl Responder {
    /// Takes a URL apart.
    ///
    /// # Errors
    ///
    /// Nginx's words, to stand before `in OCSP responder "…"`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = strip_prefix_any_case(text.as_bytes(), b"http://");
        let rest = rest.filter(|rest| !rest.is_empty());
        let parsed = url::parse(rest.ok_or("invalid URL prefix")?)?;
        let Target::Host { host, port } = parsed.target else {
            return Err("invalid host");
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let authority = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let uri = parsed.uri.unwrap_or(b"/");
        let uri = std::str::from_utf8(uri).map_err(|_| "invalid URI")?;
        if uri.contains(|c: char| c.is_control() || c == ' ') {
            return Err("invalid URI");
        }
        let slash = if uri.ends_with('/') { "" } else { "/" };
        Ok(Self {
            host: bare.unwrap_or(host).into(),
            port: port.unwrap_or(80),
            authority: authority.into(),
            path: format!("{uri}{slash}").into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_responder_is_an_http_url() {
        let parsed = |text| {
            let it = Responder::parse(text).expect(text);
            (
                it.host.into_string(),
                it.port,
                it.authority.into_string(),
                it.path.into_string(),
            )
        };
        let made = |host: &str, port, authority: &str, path: &str| {
            (host.to_owned(), port, authority.to_owned(), path.to_owned())
        };
        assert_eq!(
            parsed("http://a.example"),
            made("a.example", 80, "a.example", "/")
        );
        assert_eq!(parsed("HTTP://a:8888/o"), made("a", 8888, "a:8888", "/o/"));
        assert_eq!(
            parsed("http://[::1]:81/o/"),
            made("::1", 81, "[::1]:81", "/o/")
        );
        for (bad, why) in [
            ("https://a/", "invalid URL prefix"),
            ("a.example", "invalid URL prefix"),
            ("http://", "invalid URL prefix"),
            ("http:///x", "no host"),
            ("http://a:0/", "invalid port"),
            ("http://unix:/s", "invalid host"),
            ("http://a/ b", "invalid URI"),
        ] {
            assert_eq!(Responder::parse(bad), Err(why), "{bad}");
        }
    }
}
