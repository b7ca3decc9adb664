//! HTTP/1.1 on the wire: heads in, framing decided, chunked bodies decoded,
//! messages encoded.

pub mod chunked;
pub mod encode;
pub mod framing;
pub mod parse;
mod scan;
