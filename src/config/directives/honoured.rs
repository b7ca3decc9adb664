//! What ringwall does as Nginx does it.

use super::{Arguments, Class, Contexts, Row};

const M: Contexts = Contexts::MAIN;
const E: Contexts = Contexts::EVENTS;
const H: Contexts = Contexts::HTTP;
const S: Contexts = Contexts::SERVER;
const L: Contexts = Contexts::LOCATION;
const U: Contexts = Contexts::UPSTREAM;
const HS: Contexts = H.with(S);
const HSL: Contexts = HS.with(L);
const LIF: Contexts = Contexts::LOCATION_IF;
const LMT: Contexts = Contexts::LIMIT_EXCEPT;
/// Where a request is rewritten.
const SCRIPT: Contexts = S.with(L).with(Contexts::SERVER_IF).with(LIF);

/// As many words as the lexer takes.
const MANY: usize = usize::MAX;

const fn words(
    name: &'static str,
    contexts: Contexts,
    (min, max): (usize, usize),
    help: &'static str,
) -> Row {
    Row {
        name,
        contexts,
        arguments: Arguments::Words(min, max),
        class: Class::Honoured(help),
    }
}

const fn flag(name: &'static str, contexts: Contexts, help: &'static str) -> Row {
    Row {
        name,
        contexts,
        arguments: Arguments::Flag,
        class: Class::Honoured(help),
    }
}

const fn block(
    name: &'static str,
    contexts: Contexts,
    (min, max): (usize, usize),
    help: &'static str,
) -> Row {
    Row {
        name,
        contexts,
        arguments: Arguments::Block(min, max),
        class: Class::Honoured(help),
    }
}

const ONE: (usize, usize) = (1, 1);
const OBSOLETE: &str = "obsolete in Nginx too, which warns of it in the same words";

pub(super) const ROWS: &[Row] = &[
    // The main context and events.
    words(
        "include",
        Contexts::ANY,
        ONE,
        "a file or a pattern, relative to the main file's folder",
    ),
    words("user", M, (1, 2), "user and group of the workers"),
    words(
        "worker_processes",
        M,
        ONE,
        "worker threads; `auto` for one per core",
    ),
    words(
        "worker_rlimit_core",
        M,
        ONE,
        "size of core dumps; without it there are none",
    ),
    flag(
        "core_dump_memory",
        M,
        "core dumps hold memory, keys included; without it registers and the list of files (off)",
    ),
    words("worker_rlimit_nofile", M, ONE, "limit on open files"),
    words(
        "working_directory",
        M,
        ONE,
        "where the process is once it serves, and where its core goes",
    ),
    words(
        "env",
        M,
        ONE,
        "`NAME=VALUE` for `env:NAME`; every variable is kept",
    ),
    words(
        "worker_shutdown_timeout",
        M,
        ONE,
        "how long a graceful stop waits",
    ),
    words("pid", M, ONE, "file with the process id"),
    flag("daemon", M, "run in the background"),
    flag(
        "master_process",
        M,
        "`off`: a single worker, in the foreground",
    ),
    flag(
        "seccomp",
        M,
        "threads but the main one may make only the system calls that they need (on)",
    ),
    flag(
        "landlock",
        M,
        "threads but the main one may open only the files that serving needs (on)",
    ),
    words(
        "error_log",
        M.with(HSL),
        (1, MANY),
        "file, `stderr` or `syslog:`, and level",
    ),
    block("events", M, (0, 0), "connection processing"),
    words("worker_connections", E, ONE, "connections per worker"),
    words("use", E, ONE, "`io_uring` or `epoll`"),
    words(
        "ssl_watch",
        M.with(H),
        (1, 2),
        "reload when a certificate, key or CA file changes; interval (5s)",
    ),
    // Virtual hosts and routing.
    block("http", M, (0, 0), "everything about HTTP"),
    block("server", H, (0, 0), "a virtual host"),
    words(
        "listen",
        S,
        (1, MANY),
        "address, port and socket options; `systemd:NAME` for a socket that systemd passes",
    ),
    words(
        "server_name",
        S,
        (1, MANY),
        "exact names, wildcards and regular expressions",
    ),
    block(
        "location",
        S.with(L),
        (1, 2),
        "settings for some of the paths",
    ),
    words(
        "return",
        SCRIPT,
        (1, 2),
        "answer with a code, a text or a URL",
    ),
    words("set", SCRIPT, (2, 2), "give a variable a value"),
    words(
        "rewrite",
        SCRIPT,
        (2, 3),
        "change the path, or redirect; `last`, `break`, `redirect`, `permanent`",
    ),
    words("break", SCRIPT, (0, 0), "end the rewriting here"),
    block(
        "if",
        S.with(L),
        (1, MANY),
        "rewriting and settings under a condition",
    ),
    block(
        "limit_except",
        L,
        (1, MANY),
        "settings for all other methods",
    ),
    words(
        "try_files",
        S.with(L),
        (2, MANY),
        "the first of these files that exists, else a URI or `=CODE`",
    ),
    words(
        "internal",
        L,
        (0, 0),
        "only for internal redirects; 404 for clients",
    ),
    words(
        "error_page",
        HSL.with(LIF),
        (2, MANY),
        "what answers instead of an error; `=CODE` changes its status",
    ),
    flag(
        "recursive_error_pages",
        HSL,
        "`error_page` also for errors of error pages",
    ),
    flag(
        "absolute_redirect",
        HSL,
        "redirects to a path of this server are whole URLs",
    ),
    flag("port_in_redirect", HSL, "such a URL names the port"),
    flag(
        "server_name_in_redirect",
        HSL,
        "such a URL names the server by its first name",
    ),
    block("map", H, (2, 2), "a variable that depends on another value"),
    block("geo", H, (1, 2), "a variable that depends on an address"),
    block(
        "split_clients",
        H,
        (2, 2),
        "a variable that takes its values by shares",
    ),
    flag(
        "http2",
        HS,
        "HTTP/2 by ALPN, and without TLS by prior knowledge",
    ),
    words(
        "http2_max_concurrent_streams",
        HS,
        ONE,
        "requests at a time on one HTTP/2 connection",
    ),
    words(
        "http2_body_preread_size",
        HS,
        ONE,
        "bytes of a body that a client may send before they are taken; at least 16k",
    ),
    words(
        "http2_chunk_size",
        HSL,
        ONE,
        "largest DATA frame of a response; by default the largest that the client takes",
    ),
    words("http2_recv_timeout", HS, ONE, OBSOLETE),
    words("http2_idle_timeout", HS, ONE, OBSOLETE),
    words("http2_max_requests", HS, ONE, OBSOLETE),
    words("http2_max_field_size", HS, ONE, OBSOLETE),
    words("http2_max_header_size", HS, ONE, OBSOLETE),
    words("http2_max_concurrent_pushes", HS, ONE, OBSOLETE),
    words("http2_push", HSL, ONE, OBSOLETE),
    flag("http2_push_preload", HSL, OBSOLETE),
    flag(
        "merge_slashes",
        HS,
        "treat `//` as `/` when a location is sought",
    ),
    // Limits.
    words("client_header_timeout", HS, ONE, "time for a request head"),
    words(
        "client_body_timeout",
        HSL,
        ONE,
        "time between two reads of a body",
    ),
    words(
        "client_max_body_size",
        HSL,
        ONE,
        "largest request body; 0 for any",
    ),
    words(
        "client_header_buffer_size",
        HS,
        ONE,
        "first buffer for a request head",
    ),
    words(
        "large_client_header_buffers",
        HS,
        (2, 2),
        "number and size of further ones",
    ),
    words(
        "send_timeout",
        HSL,
        ONE,
        "time between two writes to a client",
    ),
    words(
        "keepalive_timeout",
        HSL,
        (1, 2),
        "how long an idle connection is kept",
    ),
    words("keepalive_requests", HSL, ONE, "requests per connection"),
    words(
        "keepalive_min_timeout",
        HSL,
        ONE,
        "how long an idle connection is kept even while draining",
    ),
    words(
        "max_headers",
        HS,
        ONE,
        "fields of a request at the most, up to 1024 (1000)",
    ),
    words(
        "client_body_min_rate",
        HSL,
        (1, 2),
        "bytes a second that a request body must come with, after a time (10s); 408",
    ),
    words(
        "lingering_close",
        HSL,
        ONE,
        "`on`, `off` or `always`: what a client still sends is waited for before a close",
    ),
    words("lingering_time", HSL, ONE, "how long at the most"),
    words(
        "lingering_timeout",
        HSL,
        ONE,
        "how long for each piece of it",
    ),
    flag(
        "reset_timedout_connection",
        HSL,
        "clients that timed out, or got 444, are reset",
    ),
    flag("underscores_in_headers", HS, "accept `_` in field names"),
    flag(
        "ignore_invalid_headers",
        HS,
        "drop fields with invalid names",
    ),
    // Who is let in.
    words(
        "allow",
        HSL.with(LMT),
        ONE,
        "an address, a network, `unix:` or `all` that is let in; the first rule decides",
    ),
    words(
        "deny",
        HSL.with(LMT),
        ONE,
        "an address, a network, `unix:` or `all` that is kept out",
    ),
    words(
        "auth_basic",
        HSL.with(LMT),
        ONE,
        "realm for which a user name and a password are demanded, or `off`",
    ),
    words(
        "auth_basic_user_file",
        HSL.with(LMT),
        ONE,
        "users and their hashed passwords: apr1, crypt (DES, `$1$`, `$5$`, `$6$`), bcrypt, yescrypt, \
         `{SHA}`, `{SSHA}`, `{PLAIN}`",
    ),
    words(
        "auth_request",
        HSL,
        ONE,
        "the location whose answer decides: 2xx lets in, 401 and 403 keep out; or `off`",
    ),
    words(
        "auth_request_set",
        HSL,
        (2, 2),
        "a variable that takes a value from that answer",
    ),
    words(
        "auth_delay",
        HSL,
        ONE,
        "how long a 401 is held back, against guessing",
    ),
    words(
        "satisfy",
        HSL,
        ONE,
        "`all` or `any` of address, password and subrequest must agree",
    ),
    words(
        "valid_referers",
        S.with(L),
        (1, MANY),
        "`none`, `blocked`, `server_names`, hosts and expressions: else `$invalid_referer` is 1",
    ),
    // Whom a request is from.
    words(
        "set_real_ip_from",
        HSL,
        ONE,
        "a proxy whose word about the client counts: address, network, name or `unix:`",
    ),
    words(
        "real_ip_header",
        HSL,
        ONE,
        "where it names the client: a field, or `proxy_protocol`",
    ),
    flag(
        "real_ip_recursive",
        HSL,
        "pass over the addresses of trusted proxies",
    ),
    // How much one client may have.
    words(
        "limit_req_zone",
        H,
        (3, 3),
        "what requests are counted by, and the rate",
    ),
    words(
        "limit_req",
        HSL,
        (1, 3),
        "zone, burst, `nodelay` or `delay=`: more is delayed or refused",
    ),
    words(
        "limit_req_status",
        HSL,
        ONE,
        "status of what is refused (503)",
    ),
    words(
        "limit_req_log_level",
        HSL,
        ONE,
        "`info`, `notice`, `warn` or `error`; delays one level below",
    ),
    flag("limit_req_dry_run", HSL, "count and log, refuse nothing"),
    words(
        "limit_conn_zone",
        H,
        (2, 2),
        "what requests in progress are counted by",
    ),
    words(
        "limit_conn",
        HSL,
        (2, 2),
        "zone, and how many at the same time",
    ),
    words(
        "limit_conn_status",
        HSL,
        ONE,
        "status of what is refused (503)",
    ),
    words(
        "limit_conn_log_level",
        HSL,
        ONE,
        "`info`, `notice`, `warn` or `error`",
    ),
    flag("limit_conn_dry_run", HSL, "count and log, refuse nothing"),
    // Responses and logs.
    words(
        "server_tokens",
        HSL,
        ONE,
        "version in `Server` and error pages",
    ),
    words(
        "default_type",
        HSL,
        ONE,
        "content type without a known extension",
    ),
    block("types", HSL, (0, 0), "content types by extension"),
    words(
        "add_header",
        HSL.with(LIF),
        (2, 3),
        "field added to responses",
    ),
    flag(
        "chunked_transfer_encoding",
        HSL,
        "`off`: bodies of unknown length end with the connection",
    ),
    words(
        "client_body_buffer_size",
        HSL,
        ONE,
        "how much of a body is read before a backend is asked",
    ),
    words(
        "limit_rate",
        HSL.with(LIF),
        ONE,
        "bytes sent to a client in a second",
    ),
    words(
        "limit_rate_after",
        HSL.with(LIF),
        ONE,
        "bytes that `limit_rate` lets pass first",
    ),
    words(
        "keepalive_time",
        HSL,
        ONE,
        "how long a client's connection is used at all",
    ),
    words(
        "early_hints",
        HSL,
        (1, MANY),
        "pass a backend's 103 if a value is neither empty nor 0",
    ),
    words(
        "add_trailer",
        HSL.with(LIF),
        (2, 3),
        "field behind the bodies of responses",
    ),
    words(
        "add_header_inherit",
        HSL.with(LIF),
        ONE,
        "`merge`: also the outer block's; `off`: never; `on`: unless there are own ones",
    ),
    words(
        "add_trailer_inherit",
        HSL.with(LIF),
        ONE,
        "the same for `add_trailer`",
    ),
    words(
        "expires",
        HSL.with(LIF),
        (1, 2),
        "`Expires` and `Cache-Control`: `[modified]` and a time, `@TIME`, `max`, `epoch`, `off`",
    ),
    words(
        "access_log",
        HSL.with(LIF).with(LMT),
        (1, MANY),
        "file or `syslog:`, format, `buffer=`, `flush=`, `if=`; or `off`",
    ),
    words("log_format", H, (2, MANY), "format of access log lines"),
    words(
        "metrics",
        S.with(L),
        (0, 0),
        "figures for Prometheus, or OpenMetrics if asked for",
    ),
    words(
        "stub_status",
        S.with(L),
        (0, 1),
        "Nginx's page of connection counts",
    ),
    flag("log_not_found", HSL, "log 404s in the error log"),
    // Files.
    words(
        "root",
        HSL.with(LIF),
        ONE,
        "folder of the files; the path of the request continues it",
    ),
    words(
        "alias",
        L,
        ONE,
        "folder of the files; what follows the location's name continues it",
    ),
    words("index", HSL, (1, MANY), "files that answer for a folder"),
    flag("autoindex", HSL, "list a folder that has no index file"),
    flag(
        "autoindex_exact_size",
        HSL,
        "sizes in bytes instead of rounded ones",
    ),
    words("autoindex_format", HSL, ONE, "`html` or `json`"),
    flag(
        "autoindex_localtime",
        HSL,
        "times of this machine's zone instead of UTC",
    ),
    words(
        "charset",
        HSL.with(LIF),
        ONE,
        "added to the content type; bodies are not recoded",
    ),
    words(
        "charset_types",
        HSL,
        (1, MANY),
        "content types that `charset` is added to",
    ),
    words(
        "source_charset",
        HSL.with(LIF),
        ONE,
        "charset of the files; must be that of `charset`",
    ),
    words(
        "disable_symlinks",
        HSL,
        (1, 2),
        "`off`, `on` or `if_not_owner`; `from=` leaves a part of the path out",
    ),
    words("empty_gif", L, (0, 0), "one transparent pixel"),
    flag("gzip", HSL.with(LIF), "compress responses"),
    words(
        "gzip_comp_level",
        HSL,
        ONE,
        "1 to 9: how much time compression may take",
    ),
    words(
        "gzip_disable",
        HSL,
        (1, MANY),
        "clients that get nothing compressed, by `User-Agent`; `msie6`",
    ),
    words(
        "gzip_http_version",
        HSL,
        ONE,
        "least version of a request for a compressed response",
    ),
    words(
        "gzip_min_length",
        HSL,
        ONE,
        "least length of a response to be compressed",
    ),
    words(
        "gzip_proxied",
        HSL,
        (1, MANY),
        "which responses to proxies (`Via`) are compressed",
    ),
    words(
        "gzip_static",
        HSL,
        ONE,
        "`on` or `always`: send `FILE.gz` in the place of `FILE`",
    ),
    words(
        "gzip_types",
        HSL,
        (1, MANY),
        "content types to be compressed besides `text/html`; `*` for all",
    ),
    flag("gzip_vary", HSL, "`Vary: Accept-Encoding`"),
    flag("etag", HSL, "`ETag` made of time and size"),
    words(
        "if_modified_since",
        HSL,
        ONE,
        "`off`, `exact` or `before`: how times are compared",
    ),
    words(
        "max_ranges",
        HSL,
        ONE,
        "ranges of a request that are honoured",
    ),
    // Proxying.
    words(
        "proxy_pass",
        L.with(LIF).with(LMT),
        ONE,
        "backend: `http://` or `https://` and a host, address, socket or upstream",
    ),
    words(
        "proxy_set_header",
        HSL,
        (2, 2),
        "field of the request to the backend",
    ),
    words(
        "proxy_client_identity",
        HSL,
        (1, 3),
        "fields that tell a backend who the client proved to be: `xfcc`, `rfc9440`, `nginx` \
         or `off`; `cert`, `chain`",
    ),
    words("proxy_http_version", HSL, ONE, "`1.0`, `1.1` or `2`"),
    words(
        "proxy_connect_timeout",
        HSL,
        ONE,
        "time to connect to a backend",
    ),
    words(
        "proxy_read_timeout",
        HSL,
        ONE,
        "time between two reads from a backend",
    ),
    words(
        "proxy_send_timeout",
        HSL,
        ONE,
        "time between two writes to a backend",
    ),
    words(
        "proxy_redirect",
        HSL,
        (1, 2),
        "`default`, `off` or a prefix and its replacement: rewriting of `Location` and `Refresh`",
    ),
    words(
        "proxy_cookie_domain",
        HSL,
        (1, 2),
        "`off`, or a domain of backends' cookies and its replacement",
    ),
    words(
        "proxy_cookie_flags",
        HSL,
        (1, MANY),
        "`off`, or a cookie's name and the flags it gets or loses",
    ),
    words(
        "proxy_cookie_path",
        HSL,
        (1, 2),
        "`off`, or a path prefix of backends' cookies and its replacement",
    ),
    words(
        "proxy_hide_header",
        HSL,
        ONE,
        "field of the backend that clients do not see",
    ),
    words(
        "proxy_ignore_headers",
        HSL,
        (1, MANY),
        "fields of the backend that have no effect here",
    ),
    words(
        "proxy_method",
        HSL,
        ONE,
        "method of the request to the backend",
    ),
    words(
        "proxy_pass_header",
        HSL,
        ONE,
        "field of the backend that is hidden otherwise",
    ),
    flag(
        "proxy_intercept_errors",
        HSL,
        "`error_page` also for the backend's errors",
    ),
    words(
        "proxy_limit_rate",
        HSL,
        ONE,
        "bytes read from a backend in a second",
    ),
    flag(
        "proxy_ignore_client_abort",
        HSL,
        "go on with a request whose client is gone",
    ),
    flag(
        "proxy_request_buffering",
        HSL,
        "read as much of a body as fits `client_body_buffer_size` before a backend is asked",
    ),
    flag(
        "proxy_buffering",
        HSL,
        "a slow client does not keep its backend waiting for what fits `proxy_buffers`",
    ),
    words(
        "proxy_buffers",
        HSL,
        (2, 2),
        "number and size of what may wait for a client, in memory",
    ),
    words(
        "proxy_buffer_size",
        HSL,
        ONE,
        "largest head of a response: 16k in any case, 64k at the most",
    ),
    flag(
        "proxy_pass_request_body",
        HSL,
        "send the client's body to the backend",
    ),
    flag(
        "proxy_pass_request_headers",
        HSL,
        "send the client's fields to the backend",
    ),
    flag(
        "proxy_pass_trailers",
        HSL,
        "send the client what comes behind a backend's body",
    ),
    words(
        "proxy_set_body",
        HSL,
        ONE,
        "body of the request to the backend",
    ),
    words(
        "proxy_ssl_alpn",
        HSL,
        (1, MANY),
        "protocols offered to a TLS backend: `http/1.1`, `http/1.0`; or `h2` with \
         `proxy_http_version 2`",
    ),
    words(
        "proxy_ssl_certificate",
        HSL,
        ONE,
        "certificate shown to TLS backends, PEM or PKCS#12: a file, `data:…` or `env:NAME`",
    ),
    words(
        "proxy_ssl_certificate_cache",
        HSL,
        (1, 3),
        "certificates that variables name, kept for later requests: \
         `max=N [inactive=TIME] [valid=TIME]`, or `off`",
    ),
    words(
        "proxy_ssl_certificate_key",
        HSL,
        ONE,
        "its private key, PEM: a file, `data:…` or `env:NAME`",
    ),
    words(
        "proxy_ssl_ciphers",
        HSL,
        ONE,
        "cipher suites towards TLS backends, in OpenSSL's language",
    ),
    words(
        "proxy_ssl_conf_command",
        HSL,
        (2, 2),
        "`Ciphersuites` and the suites of TLS 1.3",
    ),
    words(
        "proxy_ssl_crl",
        HSL,
        ONE,
        "CRLs for the certificates of TLS backends, PEM or DER",
    ),
    words(
        "proxy_ssl_name",
        HSL,
        ONE,
        "who a TLS backend must be, and what SNI says; `$proxy_host`",
    ),
    words(
        "proxy_ssl_password_file",
        HSL,
        ONE,
        "passphrases of `proxy_ssl_certificate_key`, one a line",
    ),
    words(
        "proxy_ssl_protocols",
        HSL,
        (1, MANY),
        "`TLSv1.2`, `TLSv1.3` towards TLS backends",
    ),
    flag(
        "proxy_ssl_server_name",
        HSL,
        "send the name to TLS backends (SNI)",
    ),
    flag(
        "proxy_ssl_session_reuse",
        HSL,
        "resume sessions with TLS backends",
    ),
    words(
        "proxy_ssl_trusted_certificate",
        HSL,
        ONE,
        "CAs for TLS backends, PEM, or `system` for the platform's",
    ),
    flag(
        "proxy_ssl_verify",
        HSL,
        "verify TLS backends by chain and name",
    ),
    words(
        "proxy_ssl_verify_depth",
        HSL,
        ONE,
        "longest chain of a TLS backend",
    ),
    // gRPC.
    words(
        "grpc_pass",
        L.with(LIF),
        ONE,
        "gRPC backend: `grpc://`, `grpcs://` or nothing, and a host and port, socket or upstream",
    ),
    words("grpc_buffer_size", HSL, ONE, "as `proxy_buffer_size`"),
    words("grpc_bind", HSL, (1, 2), "as `proxy_bind`"),
    words(
        "grpc_connect_timeout",
        HSL,
        ONE,
        "as `proxy_connect_timeout`",
    ),
    words("grpc_hide_header", HSL, ONE, "as `proxy_hide_header`"),
    words(
        "grpc_ignore_headers",
        HSL,
        (1, MANY),
        "as `proxy_ignore_headers`",
    ),
    flag("grpc_intercept_errors", HSL, "as `proxy_intercept_errors`"),
    words(
        "grpc_next_upstream",
        HSL,
        (1, MANY),
        "as `proxy_next_upstream`",
    ),
    words(
        "grpc_next_upstream_timeout",
        HSL,
        ONE,
        "as `proxy_next_upstream_timeout`",
    ),
    words(
        "grpc_next_upstream_tries",
        HSL,
        ONE,
        "as `proxy_next_upstream_tries`",
    ),
    words("grpc_pass_header", HSL, ONE, "as `proxy_pass_header`"),
    words("grpc_read_timeout", HSL, ONE, "as `proxy_read_timeout`"),
    words("grpc_send_timeout", HSL, ONE, "as `proxy_send_timeout`"),
    words(
        "grpc_set_header",
        HSL,
        (2, 2),
        "as `proxy_set_header`; `Host` is `:authority`",
    ),
    flag("grpc_socket_keepalive", HSL, "as `proxy_socket_keepalive`"),
    words(
        "grpc_ssl_certificate",
        HSL,
        ONE,
        "as `proxy_ssl_certificate`",
    ),
    words(
        "grpc_ssl_certificate_key",
        HSL,
        ONE,
        "as `proxy_ssl_certificate_key`",
    ),
    words(
        "grpc_ssl_certificate_cache",
        HSL,
        (1, 3),
        "as `proxy_ssl_certificate_cache`",
    ),
    words("grpc_ssl_ciphers", HSL, ONE, "as `proxy_ssl_ciphers`"),
    words(
        "grpc_ssl_conf_command",
        HSL,
        (2, 2),
        "as `proxy_ssl_conf_command`",
    ),
    words("grpc_ssl_crl", HSL, ONE, "as `proxy_ssl_crl`"),
    words("grpc_ssl_name", HSL, ONE, "as `proxy_ssl_name`"),
    words(
        "grpc_ssl_password_file",
        HSL,
        ONE,
        "as `proxy_ssl_password_file`",
    ),
    words(
        "grpc_ssl_protocols",
        HSL,
        (1, MANY),
        "as `proxy_ssl_protocols`",
    ),
    flag("grpc_ssl_server_name", HSL, "as `proxy_ssl_server_name`"),
    flag(
        "grpc_ssl_session_reuse",
        HSL,
        "as `proxy_ssl_session_reuse`",
    ),
    words(
        "grpc_ssl_trusted_certificate",
        HSL,
        ONE,
        "as `proxy_ssl_trusted_certificate`",
    ),
    flag("grpc_ssl_verify", HSL, "as `proxy_ssl_verify`"),
    words(
        "grpc_ssl_verify_depth",
        HSL,
        ONE,
        "as `proxy_ssl_verify_depth`",
    ),
    block("upstream", H, ONE, "a named group of backends"),
    words(
        "server",
        U,
        (1, MANY),
        "a backend; `weight`, `max_conns`, `max_fails`, `fail_timeout`, `slow_start`, `backup`, \
         `down`, `drain`, `route`",
    ),
    words(
        "queue",
        U,
        (1, 2),
        "requests that wait where no backend can take them, and `timeout=`; of each worker",
    ),
    words("keepalive", U, (1, 2), "idle connections kept per worker"),
    words("keepalive_requests", U, ONE, "requests per connection"),
    words(
        "keepalive_timeout",
        U,
        ONE,
        "how long an idle connection is kept",
    ),
    words(
        "keepalive_time",
        U,
        ONE,
        "how long a connection is used at all",
    ),
    // Connecting.
    words(
        "proxy_bind",
        HSL,
        (1, 2),
        "the address that backends are connected to from",
    ),
    flag(
        "proxy_socket_keepalive",
        HSL,
        "let the kernel look whether idle backends are there",
    ),
    words(
        "proxy_protocol",
        HSL,
        ONE,
        "`v1` (`on`) or `v2`: tell backends who the client is, ringwall's own for HTTP",
    ),
    // Health.
    words(
        "health_check",
        Contexts::LOCATION,
        (0, MANY),
        "backends are asked now and then how they are",
    ),
    block("match", H, ONE, "what a healthy backend answers"),
    words(
        "body",
        Contexts::MATCH,
        (2, 2),
        "`~` or `!~` and what is, or is not, found in the first 256k of a healthy body",
    ),
    words(
        "header",
        Contexts::MATCH,
        (1, 3),
        "a field that is, or with `!` is not, there or so: `=`, `!=`, `~`, `!~`",
    ),
    words(
        "status",
        Contexts::MATCH,
        (1, MANY),
        "the statuses that are, or with `!` are not, healthy",
    ),
    // Names while serving.
    words(
        "resolver",
        HSL.with(U),
        (1, MANY),
        "name servers for `proxy_pass` with variables and `server … resolve`; `valid`, `ipv4`, `ipv6`",
    ),
    words(
        "resolver_timeout",
        HSL.with(U),
        ONE,
        "how long an address is waited for",
    ),
    // Balancing.
    words(
        "zone",
        U,
        (1, 2),
        "failures and connections are counted by all workers together; the size is not needed",
    ),
    words(
        "least_conn",
        U,
        (0, 0),
        "the backend with the fewest requests under way, by weight",
    ),
    words(
        "ip_hash",
        U,
        (0, 0),
        "the backend by the client's address, with Nginx's hash",
    ),
    words(
        "hash",
        U,
        (1, 2),
        "the backend by a key; `consistent` as in Nginx and ketama",
    ),
    words("random", U, (0, 2), "any backend, or the less busy of two"),
    words(
        "sticky",
        U,
        (2, MANY),
        "`cookie`, `route` or `learn`: a client stays with its backend",
    ),
    words(
        "proxy_next_upstream",
        HSL,
        (1, MANY),
        "when a request goes to the next backend",
    ),
    words(
        "proxy_next_upstream_tries",
        HSL,
        ONE,
        "backends asked for one request at the most",
    ),
    words(
        "proxy_next_upstream_timeout",
        HSL,
        ONE,
        "how long further backends are asked",
    ),
    // Gateways to other people's APIs.
    words(
        "json_relay",
        L,
        ONE,
        "calls described by JSON objects are made in the caller's name; URL of the default host",
    ),
    words(
        "json_relay_allow",
        L,
        (1, MANY),
        "another host that calls may reach: `host[:port]`, `methods=`, `path=`, `private`",
    ),
    words(
        "health",
        L,
        (0, MANY),
        "state as JSON, 503 while draining; `service=`, `upstreams`, `certificates`",
    ),
    words(
        "cors_allow_origin",
        HSL,
        (1, MANY),
        "origins whose pages may call: exact, `~` and a pattern, `*`, or `off`; others get 403",
    ),
    words(
        "cors_allow_methods",
        HSL,
        (1, MANY),
        "methods that pages may use; GET, HEAD, POST, PUT, PATCH, DELETE",
    ),
    words(
        "cors_allow_headers",
        HSL,
        (1, MANY),
        "request fields that pages may set; whatever they ask for",
    ),
    words(
        "cors_expose_headers",
        HSL,
        (1, MANY),
        "response fields that pages may read",
    ),
    flag(
        "cors_allow_credentials",
        HSL,
        "pages may send cookies and certificates",
    ),
    words(
        "cors_max_age",
        HSL,
        ONE,
        "how long browsers remember what is allowed",
    ),
    // TLS.
    words(
        "ssl_certificate",
        HS,
        ONE,
        "certificate chain, PEM or PKCS#12: a file, `data:…` or `env:NAME`",
    ),
    words(
        "ssl_certificate_cache",
        HS,
        (1, 3),
        "certificates that variables name, kept for later handshakes: \
         `max=N [inactive=TIME] [valid=TIME]`, or `off`",
    ),
    words(
        "ssl_certificate_key",
        HS,
        ONE,
        "its private key: likewise; may be left out for a PKCS#12 store",
    ),
    words(
        "ssl_password_file",
        HS,
        ONE,
        "passphrases for encrypted keys and PKCS#12 stores, one a line",
    ),
    words(
        "ssl_client_certificate",
        HS,
        ONE,
        "CAs for client certificates, named to clients",
    ),
    words(
        "ssl_trusted_certificate",
        HS,
        ONE,
        "CAs for client certificates, not named to clients",
    ),
    words(
        "ssl_client_allow",
        HSL,
        ONE,
        "clients let in: `cn:`, `ou:`, `dns:`, `email:`, `uri:`, `subject:`, `issuer:`, `serial:`, `fingerprint:` or `all`",
    ),
    words(
        "ssl_client_deny",
        HSL,
        ONE,
        "clients kept out; of these and `ssl_client_allow` the first match decides",
    ),
    flag(
        "ssl_client_required",
        S.with(L),
        "a verified client certificate is demanded here",
    ),
    words(
        "ssl_crl",
        HS,
        ONE,
        "CRLs for the certificates of clients and their CAs, PEM or DER",
    ),
    words(
        "ssl_crl_expired",
        HS,
        ONE,
        "`deny` or `allow`: what a CRL past its nextUpdate does",
    ),
    flag(
        "ssl_permissive",
        S,
        "accept plaintext HTTP beside TLS on the same port",
    ),
    words(
        "ssl_verify_client",
        HS,
        ONE,
        "`on`, `off`, `optional` or `optional_no_ca`",
    ),
    words(
        "ssl_verify_failure",
        HS,
        ONE,
        "`alert` or `http`: how a refused client is told",
    ),
    words(
        "ssl_verify_depth",
        HS,
        ONE,
        "longest chain of client certificates",
    ),
    words(
        "ssl_protocols",
        HS,
        (1, MANY),
        "`TLSv1.2`, `TLSv1.3`; older versions are not offered",
    ),
    words(
        "ssl_ciphers",
        HS,
        ONE,
        "cipher suites, in OpenSSL's language",
    ),
    words(
        "ssl_conf_command",
        HS,
        (2, 2),
        "`Ciphersuites` and the suites of TLS 1.3",
    ),
    words(
        "ssl_ecdh_curve",
        HS,
        ONE,
        "`auto`, or of X25519MLKEM768, X25519, prime256v1, secp384r1",
    ),
    flag(
        "ssl_prefer_server_ciphers",
        HS,
        "the server's order of suites decides",
    ),
    words(
        "ssl_session_cache",
        HS,
        (1, 2),
        "`shared:NAME:SIZE`, `off` or `none`",
    ),
    words(
        "ssl_session_timeout",
        HS,
        ONE,
        "how long a session may be resumed",
    ),
    flag(
        "ssl_stapling",
        HS,
        "what the CA says of the certificate is told to clients that ask (OCSP)",
    ),
    words(
        "ssl_stapling_file",
        HS,
        ONE,
        "the response, DER, in place of asking for it",
    ),
    words(
        "ssl_stapling_responder",
        HS,
        ONE,
        "`http://` URL to ask, in place of the certificate's own",
    ),
    flag(
        "ssl_stapling_verify",
        HS,
        "a responder's own certificate must be of the CA and for this",
    ),
    flag("ssl_session_tickets", HS, "resumption by tickets"),
    words(
        "ssl_session_ticket_key",
        HS,
        ONE,
        "file with the key of tickets, 48 or 80 bytes; the first seals, all open",
    ),
    flag(
        "ssl_reject_handshake",
        HS,
        "refuse handshakes for these names; needs no certificate",
    ),
];
