//! End-to-end tests: the binary as an operator runs it, judged by what comes
//! out of its sockets, its logs and its exit codes. A file per promise.

#![deny(unsafe_code)]
#![warn(clippy::use_self, clippy::redundant_clone)]

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod access;
mod auth_request;
mod authorization;
mod balancing;
mod bodies;
mod buffering;
mod certificate_error_pages;
mod certificate_sources;
mod clients;
mod config_samples;
mod container;
mod cors;
mod demo;
mod differential;
mod egress;
mod egress_peers;
mod epoll;
mod files;
mod files_like_nginx;
mod framing;
mod guide;
mod gzip;
mod h2_attacks;
mod h2_front;
mod h2_peers;
mod h2_rules;
mod health;
mod identity;
mod imports;
mod interop;
mod lifecycle;
mod limits;
mod logs;
mod metrics;
mod migration;
mod package;
mod parting;
mod permissive;
mod privileges;
mod proxying;
mod rate_limits;
mod real_ip;
mod recipes;
mod relay;
mod reload;
mod resolver;
mod response_buffering;
mod response_filters;
mod retry;
mod review;
mod revocation;
mod rewriting;
mod routing;
mod sandbox;
mod scanners;
mod sealed_keys;
mod server_certificates;
mod sessions;
mod slow_peers;
mod smuggling;
mod soak;
mod stapling;
mod takeover;
mod tls;
mod upgrade;
mod upstream_link;
mod upstreams;
mod verification;
