"""The configurations: one text for Nginx and ringwall, and nothing in it is
particular to either; what HAProxy needs to do the same work."""

HOST = "compare.test"
CIPHERSUITES = "TLS_AES_256_GCM_SHA384"

# How both begin.
MAIN = """\
worker_processes 1;
worker_rlimit_nofile 16384;
daemon off;
pid {run}/proxy.pid;
error_log {run}/error.log warn;

events {{
    worker_connections 16384;
}}

http {{
"""

PROXY = MAIN + """\
    ssl_session_cache shared:SSL:10m;
    ssl_session_timeout 10m;
    access_log {run}/access.log;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;

    upstream backend {{
        server 127.0.0.1:{backend_port};
        keepalive 64;
    }}

    upstream secure {{
        server 127.0.0.1:{secure_port};
        keepalive 64;
    }}

    server {{
        listen 127.0.0.1:{plain_port};

        location / {{
            proxy_pass https://secure;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_ssl_certificate {pki}/client.crt;
            proxy_ssl_certificate_key {pki}/client.key;
            proxy_ssl_trusted_certificate {pki}/ca.crt;
            proxy_ssl_verify on;
            proxy_ssl_name compare.test;
            proxy_ssl_server_name on;
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_session_reuse on;
        }}
    }}

    server {{
        listen 127.0.0.1:{tls_port} ssl;
        listen 127.0.0.1:{h2_port} ssl http2;
        server_name compare.test;

        ssl_certificate {pki}/server.crt;
        ssl_certificate_key {pki}/server.key;
        ssl_client_certificate {pki}/ca.crt;
        ssl_verify_client on;
        ssl_protocols TLSv1.3;

        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;

        location / {{
            proxy_pass http://backend;
        }}

        # Else Nginx writes each body to a file first.
        location = /upload {{
            client_max_body_size 0;
            proxy_request_buffering off;
            proxy_pass http://backend;
        }}
    }}
}}
"""

# What the relays of Node do, for ringwall alone.
RELAY = MAIN + """\
    access_log {run}/access.log;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;

    server {{
        listen 127.0.0.1:{plain_port};

        location = /proxy {{
            json_relay https://127.0.0.1:{secure_port};
            proxy_ssl_certificate {pki}/client.crt;
            proxy_ssl_certificate_key {pki}/client.key;
            proxy_ssl_trusted_certificate {pki}/ca.crt;
            proxy_ssl_verify on;
            proxy_ssl_name compare.test;
            proxy_ssl_server_name on;
            proxy_ssl_protocols TLSv1.3;
        }}
    }}
}}
"""

# Its log goes to the standard output, which is a file here.
HAPROXY = """\
global
    nbthread 1
    maxconn 16384
    # It reckons with two descriptors for each connection, idle ones too.
    no strict-limits
    log stdout format raw local0 info
    tune.ssl.cachesize 40000
    ssl-default-bind-ciphersuites TLS_AES_256_GCM_SHA384
    ssl-default-bind-options ssl-min-ver TLSv1.3

defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    timeout client 300s
    timeout server 60s
    timeout connect 5s
    timeout http-keep-alive 300s

frontend tls
    bind 127.0.0.1:{tls_port} ssl crt {pki}/server.pem ca-file {pki}/ca.crt verify required alpn http/1.1
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Proto https
    default_backend backend

frontend h2
    bind 127.0.0.1:{h2_port} ssl crt {pki}/server.pem ca-file {pki}/ca.crt verify required alpn h2
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Proto https
    default_backend backend

backend backend
    server backend 127.0.0.1:{backend_port} pool-max-conn 64
"""

BACKEND = """\
worker_processes 1;
worker_rlimit_nofile 16384;
daemon off;
pid {tmp}/backend.pid;
error_log {tmp}/backend-error.log warn;

events {{
    worker_connections 16384;
}}

http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;

    upstream itself {{
        server 127.0.0.1:{backend_port};
        keepalive 64;
    }}

    # The second listener is for egress, and for a relay that knows no TLS.
    server {{
        listen 127.0.0.1:{backend_port};
        listen 127.0.0.1:{secure_port} ssl;
        ssl_certificate {tmp}/pki/server.crt;
        ssl_certificate_key {tmp}/pki/server.key;
        ssl_client_certificate {tmp}/pki/ca.crt;
        ssl_verify_client on;
        ssl_protocols TLSv1.3;

        root {tmp}/www;
        location = /small {{ return 200 "hello from the backend\\n"; }}
        location = /requests {{ stub_status; }}
        # Read to its end, in memory, before there is an answer.
        location = /upload {{
            client_max_body_size 0;
            client_body_buffer_size 2m;
            proxy_pass http://itself/small;
            proxy_method GET;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
        location / {{ }}
    }}
}}
"""
