//! What a location says about compression.

use std::sync::Arc;

use super::TypeSet;
use crate::config::regexes::Pattern;

/// `gzip` and its family, where anything of it is on.
#[derive(Debug)]
pub struct Gzip {
    /// `gzip on`.
    pub coding: Option<GzipCoding>,
    /// `gzip_static`. Default off.
    pub files: GzipFiles,
    /// `gzip_vary`. Default off.
    pub vary: bool,
    /// `gzip_http_version 1.0`: clients of that version get it too. Default
    /// 1.1.
    pub http10: bool,
    /// `gzip_proxied`: for requests with a Via field. Default off.
    pub proxied: GzipProxied,
    /// `gzip_disable msie6`: Internet Explorer 4 to 6.
    pub disabled_for_msie6: bool,
    /// `gzip_disable`: expressions that a User-Agent is held against.
    pub disabled_for: Arc<[Pattern]>,
}

/// What is compressed, and how.
#[derive(Debug)]
pub struct GzipCoding {
    /// `gzip_types`. Default text/html.
    pub types: Arc<TypeSet>,
    /// `gzip_min_length`, bytes, of responses whose length is known. Default
    /// 20.
    pub min_length: u64,
    /// `gzip_comp_level`, 1–9. Default 1.
    pub level: u32,
}

/// `gzip_static`: `FILE.gz` is sent in the place of `FILE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GzipFiles {
    /// Never.
    Off,
    /// To clients that accept it.
    On,
    /// To all.
    Always,
}

/// `gzip_proxied`: which responses to proxies are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the directive's own words")]
pub struct GzipProxied {
    pub any: bool,
    pub expired: bool,
    pub no_cache: bool,
    pub no_store: bool,
    pub private: bool,
    pub no_last_modified: bool,
    pub no_etag: bool,
    pub auth: bool,
}
