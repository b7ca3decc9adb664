//! HTTP/2 (RFC 9113): the `h2` crate's protocol core over our own streams.

pub(crate) mod io;
