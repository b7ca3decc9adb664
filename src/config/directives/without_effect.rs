//! Directives that are accepted and change nothing, because they tune
//! mechanisms that ringwall does not have, or because they state what ringwall
//! does in any case.
//!
//! Nothing that changes who may connect, what is forwarded or what is logged
//! belongs here.

use super::{Arguments, Class, Contexts, Group};

const M: Contexts = Contexts::MAIN;
const E: Contexts = Contexts::EVENTS;
const H: Contexts = Contexts::HTTP;
const HS: Contexts = H.with(Contexts::SERVER);
const SL: Contexts = Contexts::SERVER.with(Contexts::LOCATION);
const HSL: Contexts = HS.with(Contexts::LOCATION);

const ONE: Arguments = Arguments::Words(1, 1);
const SOME: Arguments = Arguments::Words(1, usize::MAX);
const FLAG: Arguments = Arguments::Flag;

const fn group(
    reason: &'static str,
    contexts: Contexts,
    arguments: Arguments,
    names: &'static str,
) -> Group {
    Group {
        class: Class::NoEffect(reason),
        contexts,
        arguments,
        names,
    }
}

const fn fixed(
    values: &'static [&'static str],
    otherwise: &'static str,
    contexts: Contexts,
    names: &'static str,
) -> Group {
    Group {
        class: Class::Fixed(values, otherwise),
        contexts,
        arguments: SOME,
        names,
    }
}

const KERNEL: &str = "how bytes reach the socket is the ring's business";
const TABLES: &str = "tables have the size they need";
const BUFFERS: &str = "bodies are streamed through bounded memory, without temporary files";
const NO_CACHE: &str = "nothing is cached";
const LATER: &str = "is not implemented in this version";
const CACHES: &str = "is not supported: ringwall does not cache";
const FOREIGN: &str = "is not supported: it has no place in ringwall";

pub(super) const GROUPS: &[Group] = &[
    // The main context and events.
    group(
        "each worker is pinned to a core",
        M,
        SOME,
        "worker_cpu_affinity",
    ),
    group(
        "workers are threads of one process",
        M,
        ONE,
        "worker_priority",
    ),
    group(
        "there is no such mechanism",
        M,
        ONE,
        "timer_resolution lock_file debug_points",
    ),
    group(
        "there is no such mechanism",
        M,
        FLAG,
        "pcre_jit ssl_object_cache_inheritable",
    ),
    group("there are no loadable modules", M, ONE, "load_module"),
    group(
        "there are no thread pools to size",
        M,
        Arguments::Words(2, 3),
        "thread_pool",
    ),
    group(
        "workers accept in turn",
        E,
        FLAG,
        "accept_mutex multi_accept",
    ),
    group("workers accept in turn", E, ONE, "accept_mutex_delay"),
    group(
        "rings have a size of their own",
        E,
        ONE,
        "worker_aio_requests",
    ),
    // Sockets and memory.
    group(KERNEL, HSL.with(Contexts::LOCATION_IF), FLAG, "sendfile"),
    group(KERNEL, HSL, FLAG, "tcp_nopush tcp_nodelay aio_write"),
    group(
        KERNEL,
        HSL,
        SOME,
        "\
         aio directio directio_alignment sendfile_max_chunk read_ahead send_lowat \
         output_buffers postpone_output",
    ),
    group(
        "old browsers keep their connections like all others",
        HSL,
        SOME,
        "keepalive_disable",
    ),
    group(
        "there are no memory pools",
        HS,
        ONE,
        "connection_pool_size request_pool_size",
    ),
    group(
        TABLES,
        H,
        ONE,
        "\
         server_names_hash_bucket_size server_names_hash_max_size variables_hash_bucket_size \
         variables_hash_max_size map_hash_bucket_size map_hash_max_size",
    ),
    group(
        TABLES,
        SL,
        ONE,
        "referer_hash_bucket_size referer_hash_max_size",
    ),
    group(
        TABLES,
        HSL,
        ONE,
        "\
         types_hash_bucket_size types_hash_max_size proxy_headers_hash_bucket_size \
         proxy_headers_hash_max_size",
    ),
    group(
        "files are not kept open between requests",
        HSL,
        SOME,
        "\
         open_file_cache open_file_cache_errors open_file_cache_min_uses \
         open_file_cache_valid",
    ),
    group(
        "a compressor has the memory that it needs",
        HSL,
        Arguments::Words(2, 2),
        "gzip_buffers",
    ),
    group(
        "a compressor has the memory that it needs",
        HSL,
        ONE,
        "gzip_hash gzip_window postpone_gzipping",
    ),
    group(
        "a compressor has the memory that it needs",
        HSL,
        FLAG,
        "gzip_no_buffer",
    ),
    group("log files are kept open", HSL, SOME, "open_log_file_cache"),
    group(
        "pages are not padded for old browsers",
        HSL,
        FLAG,
        "msie_padding",
    ),
    // Bodies.
    group(BUFFERS, HSL, FLAG, "client_body_in_single_buffer"),
    group(
        BUFFERS,
        HSL,
        SOME,
        "\
         client_body_temp_path proxy_busy_buffers_size proxy_max_temp_file_size proxy_temp_file_write_size \
         proxy_temp_path proxy_send_lowat subrequest_output_buffer_size",
    ),
    // Names, zones and caches.
    group(NO_CACHE, H, SOME, "proxy_cache_path"),
    group(
        NO_CACHE,
        HSL,
        SOME,
        "\
         proxy_cache_background_update proxy_cache_bypass proxy_cache_convert_head \
         proxy_cache_key proxy_cache_lock proxy_cache_lock_age proxy_cache_lock_timeout \
         proxy_cache_max_range_offset proxy_cache_methods proxy_cache_min_uses \
         proxy_cache_purge proxy_cache_revalidate proxy_cache_use_stale proxy_cache_valid \
         proxy_no_cache",
    ),
    // TLS.
    group(
        "finite-field Diffie-Hellman is not offered",
        HS,
        ONE,
        "ssl_dhparam",
    ),
    group(
        "records have the size that suits the response",
        HS,
        ONE,
        "ssl_buffer_size",
    ),
    group(
        "each connection has buffers of its own",
        H,
        ONE,
        "http2_recv_buffer_size",
    ),
    group(
        "memory is not pooled by connection",
        HS,
        ONE,
        "http2_pool_size http2_streams_index_size",
    ),
    // What happens in any case.
    fixed(
        &["off"],
        LATER,
        HSL,
        "\
         client_body_in_file_only gunzip \
         log_subrequest \
         proxy_force_ranges \
         mirror",
    ),
    fixed(
        &["off"],
        LATER,
        HSL.with(Contexts::SERVER_IF).with(Contexts::LOCATION_IF),
        "rewrite_log uninitialized_variable_warn",
    ),
    fixed(&["off"], LATER, HS, "http3 ssl_early_data ssl_ocsp"),
    fixed(&["off"], CACHES, HSL, "proxy_cache"),
    fixed(
        &["off"],
        "is not supported: ringwall does not recode bodies",
        HSL,
        "override_charset",
    ),
    fixed(
        &["off"],
        FOREIGN,
        HSL,
        "msie_refresh ssi proxy_store userid",
    ),
];
