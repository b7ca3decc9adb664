//! Directives of Nginx that end the start with a reason.

use super::{Arguments, Class, Contexts, Group};

const M: Contexts = Contexts::MAIN;
const E: Contexts = Contexts::EVENTS;
const H: Contexts = Contexts::HTTP;
const S: Contexts = Contexts::SERVER;
const L: Contexts = Contexts::LOCATION;
const U: Contexts = Contexts::UPSTREAM;
const HS: Contexts = H.with(S);
const HSL: Contexts = HS.with(L);
const SL: Contexts = S.with(L);
const LIF: Contexts = Contexts::LOCATION_IF;
const LMT: Contexts = Contexts::LIMIT_EXCEPT;

const fn group(reason: &'static str, contexts: Contexts, names: &'static str) -> Group {
    Group {
        class: Class::Refused(reason),
        contexts,
        arguments: Arguments::Unchecked,
        names,
    }
}

/// What only tunes something that is refused itself: a file that has a
/// `fastcgi_param` left over, or in a snippet that all its hosts include, means
/// nothing by it, and Nginx does nothing with it either.
const fn idle(contexts: Contexts, names: &'static str) -> Group {
    Group {
        class: Class::NoEffect("it tunes a \"pass\" that is refused where it is said"),
        contexts,
        arguments: Arguments::Words(1, usize::MAX),
        names,
    }
}

const LATER: &str = "is not implemented in this version";
const HTTP_ONLY: &str = "is not supported: ringwall serves HTTP backends only";
const NO_CODE: &str = "is not supported: ringwall runs no code out of its configuration";
const NO_FILTER: &str = "is not supported: ringwall does not rewrite the bodies of responses";
const NO_MEDIA: &str = "is not supported: ringwall is no media server";
const NO_MAIL: &str = "is not supported: ringwall is no mail proxy";
const NO_GEOIP: &str = "is not supported: ringwall reads no GeoIP databases";
const NO_DAV: &str = "is not supported: ringwall does not write files";
const NO_ENGINE: &str = "is not supported: there is no OpenSSL to load engines into";
const REMOVED: &str = "is no longer part of Nginx; see its documentation for what replaced it";
const COMMERCIAL: &str = "is not supported: it is part of Nginx's commercial subscription";

pub(super) const GROUPS: &[Group] = &[
    // The main context and events.
    group(
        "is not supported: see error_log's level instead",
        E,
        "debug_connection",
    ),
    group(NO_ENGINE, M, "ssl_engine"),
    group(LATER, M, "stream quic_bpf"),
    group(NO_MAIL, M, "mail"),
    group(
        "is not supported: ringwall is no profiler",
        M,
        "google_perftools_profiles",
    ),
    group(COMMERCIAL, M, "mgmt otel_exporter"),
    group(
        LATER,
        Contexts::STREAM,
        "\
         pass preread_buffer_size preread_timeout proxy_download_rate proxy_half_close \
         proxy_protocol proxy_protocol_timeout proxy_requests proxy_responses \
         proxy_session_drop proxy_ssl proxy_timeout proxy_upload_rate ssl_alpn \
         ssl_handshake_timeout ssl_preread",
    ),
    group(
        NO_MAIL,
        Contexts::MAIL,
        "\
         auth_http auth_http_header auth_http_pass_client_cert auth_http_timeout imap_auth \
         imap_capabilities imap_client_buffer max_errors max_commands pop3_auth \
         pop3_capabilities protocol proxy_buffer proxy_pass_error_message proxy_smtp_auth \
         smtp_auth smtp_capabilities smtp_client_buffer smtp_greeting_delay starttls timeout \
         xclient",
    ),
    // What a healthy backend answers.
    group(LATER, Contexts::MATCH, "require"),
    // The core of http.
    group(LATER, L, "post_action"),
    // Rewriting and variables.
    group(LATER, H, "num_map"),
    // Access and limits.
    group(REMOVED, HSL, "limit_zone"),
    group(
        NO_CODE,
        HSL,
        "\
         auth_jwt auth_jwt_claim_set auth_jwt_header_set auth_jwt_key_cache auth_jwt_key_file \
         auth_jwt_key_request auth_jwt_leeway auth_jwt_type auth_jwt_require auth_oidc",
    ),
    group(
        LATER,
        HSL,
        "\
         secure_link secure_link_md5",
    ),
    group(LATER, L, "secure_link_secret"),
    // Headers, compression, files.
    group(
        LATER,
        HSL,
        "\
         gunzip_buffers",
    ),
    group(
        "is not supported: ringwall does not recode bodies",
        H,
        "charset_map",
    ),
    group(LATER, L, "random_index"),
    group(LATER, SL, "mirror_request_body"),
    group(
        REMOVED,
        HS,
        "\
         spdy_chunk_size spdy_headers_comp",
    ),
    group(
        LATER,
        HS,
        "\
         http3_hq http3_max_concurrent_streams http3_stream_buffer_size \
         quic_active_connection_id_limit quic_gso quic_host_key quic_retry",
    ),
    // The proxy.
    group(
        LATER,
        HSL,
        "\
         \
         proxy_store_access proxy_allow_upstream proxy_request_dynamic \
         proxy_ssl_key_log",
    ),
    group(
        LATER,
        U,
        "\
         least_time state",
    ),
    group(COMMERCIAL, U, "ntlm sticky_cookie_insert upstream_conf"),
    group(
        COMMERCIAL,
        L,
        "\
         api status keyval session_log f4f hls hls_buffers hls_forward_args \
         hls_fragment hls_mp4_buffer_size hls_mp4_max_buffer_size",
    ),
    group(
        COMMERCIAL,
        H,
        "\
         keyval_zone session_log_format session_log_zone status_format status_zone",
    ),
    // TLS.
    group(
        LATER,
        HS,
        "\
         ssl_key_log ssl_ocsp_cache ssl_ocsp_responder \
         ssl_certificate_compression ssl_ech_file",
    ),
    group(
        "is no longer part of Nginx; use the \"listen ... ssl\" directive instead",
        HS,
        "ssl",
    ),
    // Other backends.
    group(
        HTTP_ONLY,
        L.with(LIF),
        "fastcgi_pass uwsgi_pass scgi_pass memcached_pass",
    ),
    idle(H, "fastcgi_cache_path uwsgi_cache_path scgi_cache_path"),
    idle(L, "fastcgi_split_path_info"),
    idle(HSL, FASTCGI),
    idle(HSL.with(LIF), "fastcgi_param uwsgi_param scgi_param"),
    idle(HSL, UWSGI),
    idle(HSL, SCGI),
    idle(HSL, MEMCACHED),
    group(LATER, HSL, GRPC),
    group(
        "is not supported: ringwall is no forward proxy",
        SL,
        "tunnel_pass",
    ),
    // What changes bodies, runs code or reads databases.
    group(
        NO_FILTER,
        HSL,
        "\
         addition_types add_after_body add_before_body sub_filter sub_filter_last_modified \
         sub_filter_once sub_filter_types ssi_ignore_recycled_buffers ssi_last_modified ssi_min_file_chunk \
         ssi_silent_errors ssi_types ssi_value_length xslt_last_modified xslt_param \
         xslt_string_param xslt_types image_filter_buffer image_filter_interlace \
         image_filter_jpeg_quality image_filter_sharpen image_filter_transparency \
         image_filter_webp_quality slice",
    ),
    group(NO_FILTER, H.with(S).with(L), "xml_entities"),
    group(NO_FILTER, L, "xslt_stylesheet image_filter"),
    group(
        NO_CODE,
        H,
        "\
         perl_modules perl_require perl_set js_import js_path js_set js_var js_preload_object \
         js_shared_dict_zone js_fetch_ciphers lua_package_path lua_package_cpath \
         lua_shared_dict init_by_lua_block init_by_lua_file init_worker_by_lua_block \
         init_worker_by_lua_file",
    ),
    group(NO_CODE, L.with(LMT), "perl js_content"),
    group(
        NO_CODE,
        HSL,
        "\
         js_body_filter js_header_filter js_periodic access_by_lua_block access_by_lua_file \
         content_by_lua_block content_by_lua_file rewrite_by_lua_block rewrite_by_lua_file \
         set_by_lua_block header_filter_by_lua_block body_filter_by_lua_block \
         log_by_lua_block ssl_certificate_by_lua_block",
    ),
    group(
        NO_GEOIP,
        H,
        "\
         geoip_city geoip_country geoip_org geoip_proxy geoip_proxy_recursive geoip2",
    ),
    group(NO_MEDIA, L, "flv mp4"),
    group(
        NO_MEDIA,
        HSL,
        "\
         mp4_buffer_size mp4_limit_rate mp4_limit_rate_after mp4_max_buffer_size \
         mp4_start_key_frame",
    ),
    group(
        NO_DAV,
        HSL,
        "\
         create_full_put_path dav_access dav_methods min_delete_depth",
    ),
    group(
        "is not supported: ringwall does not tell browsers apart",
        HSL,
        "\
         ancient_browser ancient_browser_value modern_browser modern_browser_value",
    ),
    group(
        "is not supported: ringwall sets no cookies of its own",
        HSL,
        "\
         userid_domain userid_expires userid_flags userid_mark userid_name userid_p3p \
         userid_path userid_service",
    ),
    group(
        LATER,
        HSL,
        "otel_trace otel_trace_context otel_span_name otel_span_attr",
    ),
];

const FASTCGI: &str = "\
         fastcgi_allow_upstream fastcgi_bind fastcgi_buffer_size fastcgi_buffering \
         fastcgi_buffers fastcgi_busy_buffers_size fastcgi_cache \
         fastcgi_cache_background_update fastcgi_cache_bypass fastcgi_cache_key \
         fastcgi_cache_lock fastcgi_cache_lock_age fastcgi_cache_lock_timeout \
         fastcgi_cache_max_range_offset fastcgi_cache_methods fastcgi_cache_min_uses \
         fastcgi_cache_purge fastcgi_cache_revalidate fastcgi_cache_use_stale \
         fastcgi_cache_valid fastcgi_catch_stderr fastcgi_connect_timeout \
         fastcgi_force_ranges fastcgi_hide_header fastcgi_ignore_client_abort \
         fastcgi_ignore_headers fastcgi_index fastcgi_intercept_errors fastcgi_keep_conn \
         fastcgi_limit_rate fastcgi_max_temp_file_size fastcgi_next_upstream \
         fastcgi_next_upstream_timeout fastcgi_next_upstream_tries fastcgi_no_cache \
         fastcgi_pass_header fastcgi_pass_request_body \
         fastcgi_pass_request_headers fastcgi_read_timeout fastcgi_request_buffering \
         fastcgi_request_dynamic fastcgi_send_lowat fastcgi_send_timeout \
         fastcgi_socket_keepalive fastcgi_store fastcgi_store_access \
         fastcgi_temp_file_write_size fastcgi_temp_path";

const UWSGI: &str = "\
         uwsgi_allow_upstream uwsgi_bind uwsgi_buffer_size uwsgi_buffering uwsgi_buffers \
         uwsgi_busy_buffers_size uwsgi_cache uwsgi_cache_background_update uwsgi_cache_bypass \
         uwsgi_cache_key uwsgi_cache_lock uwsgi_cache_lock_age uwsgi_cache_lock_timeout \
         uwsgi_cache_max_range_offset uwsgi_cache_methods uwsgi_cache_min_uses \
         uwsgi_cache_purge uwsgi_cache_revalidate uwsgi_cache_use_stale uwsgi_cache_valid \
         uwsgi_connect_timeout uwsgi_force_ranges uwsgi_hide_header uwsgi_ignore_client_abort \
         uwsgi_ignore_headers uwsgi_intercept_errors uwsgi_limit_rate \
         uwsgi_max_temp_file_size uwsgi_modifier1 uwsgi_modifier2 uwsgi_next_upstream \
         uwsgi_next_upstream_timeout uwsgi_next_upstream_tries uwsgi_no_cache \
         uwsgi_pass_header uwsgi_pass_request_body uwsgi_pass_request_headers \
         uwsgi_read_timeout uwsgi_request_buffering uwsgi_request_dynamic uwsgi_send_timeout \
         uwsgi_socket_keepalive uwsgi_ssl_certificate uwsgi_ssl_certificate_cache \
         uwsgi_ssl_certificate_key uwsgi_ssl_ciphers uwsgi_ssl_conf_command uwsgi_ssl_crl \
         uwsgi_ssl_key_log uwsgi_ssl_name uwsgi_ssl_password_file uwsgi_ssl_protocols \
         uwsgi_ssl_server_name uwsgi_ssl_session_reuse uwsgi_ssl_trusted_certificate \
         uwsgi_ssl_verify uwsgi_ssl_verify_depth uwsgi_store uwsgi_store_access uwsgi_string \
         uwsgi_temp_file_write_size uwsgi_temp_path";

const SCGI: &str = "\
         scgi_allow_upstream scgi_bind scgi_buffer_size scgi_buffering scgi_buffers \
         scgi_busy_buffers_size scgi_cache scgi_cache_background_update scgi_cache_bypass \
         scgi_cache_key scgi_cache_lock scgi_cache_lock_age scgi_cache_lock_timeout \
         scgi_cache_max_range_offset scgi_cache_methods scgi_cache_min_uses scgi_cache_purge \
         scgi_cache_revalidate scgi_cache_use_stale scgi_cache_valid scgi_connect_timeout \
         scgi_force_ranges scgi_hide_header scgi_ignore_client_abort scgi_ignore_headers \
         scgi_intercept_errors scgi_limit_rate scgi_max_temp_file_size scgi_next_upstream \
         scgi_next_upstream_timeout scgi_next_upstream_tries scgi_no_cache \
         scgi_pass_header scgi_pass_request_body scgi_pass_request_headers scgi_read_timeout \
         scgi_request_buffering scgi_request_dynamic scgi_send_timeout scgi_socket_keepalive \
         scgi_store scgi_store_access scgi_temp_file_write_size scgi_temp_path";

const MEMCACHED: &str = "\
         memcached_allow_upstream memcached_bind memcached_buffer_size \
         memcached_connect_timeout memcached_force_ranges memcached_gzip_flag \
         memcached_next_upstream memcached_next_upstream_timeout \
         memcached_next_upstream_tries memcached_read_timeout memcached_send_timeout \
         memcached_socket_keepalive";

const GRPC: &str = "\
         grpc_allow_upstream grpc_request_dynamic grpc_ssl_key_log";
