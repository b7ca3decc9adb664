/*
 * wrk and h2load cannot present a client certificate. Loaded with LD_PRELOAD,
 * this gives one to every client context that the program makes, pins what is
 * negotiated so that two servers do the same work, and measures handshakes,
 * which wrk leaves out of its latencies.
 *
 *   CLIENT_CERT, CLIENT_KEY   PEM files to present
 *   TLS_GROUPS                key exchange groups, OpenSSL's list syntax
 *   TLS_CIPHERSUITES          TLS 1.3 suites, OpenSSL's list syntax
 *   TLS_NO_RESUMPTION=1       forget the session before every handshake
 *   TLS_REPORT                file that gets one line of JSON at exit
 *
 * Counters are plain because the load generators run with one thread.
 *
 *   cc -O2 -shared -fPIC preload.c -o preload.so -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Beyond this many handshakes the percentiles are those of the first ones;
 * a run of some seconds stays far below. */
#define MAX_SAMPLES (1u << 20)

static uint32_t samples[MAX_SAMPLES];
static unsigned long handshakes, resumed, failed;
static char version[32], cipher[64], group[64];
static int start_index = -1;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void die(const char *what)
{
    fprintf(stderr, "preload: %s\n", what);
    exit(3);
}

SSL_CTX *SSL_CTX_new(const SSL_METHOD *method)
{
    static SSL_CTX *(*next)(const SSL_METHOD *);
    const char *cert = getenv("CLIENT_CERT"), *key = getenv("CLIENT_KEY");
    const char *groups = getenv("TLS_GROUPS"), *suites = getenv("TLS_CIPHERSUITES");

    if (!next && !(next = (SSL_CTX * (*)(const SSL_METHOD *)) dlsym(RTLD_NEXT, "SSL_CTX_new")))
        die("no SSL_CTX_new to call");
    SSL_CTX *ctx = next(method);
    if (!ctx)
        return NULL;
    if (start_index < 0)
        start_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (cert && SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
        die("CLIENT_CERT cannot be used");
    if (key && SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
        die("CLIENT_KEY cannot be used");
    if (groups && SSL_CTX_set1_groups_list(ctx, groups) != 1)
        die("TLS_GROUPS cannot be used");
    if (suites && SSL_CTX_set_ciphersuites(ctx, suites) != 1)
        die("TLS_CIPHERSUITES cannot be used");
    return ctx;
}

/* Called again and again until the handshake is done. wrk reuses its SSL
 * objects through SSL_clear, which keeps the session: hence SSL_set_session. */
int SSL_connect(SSL *ssl)
{
    static int (*next)(SSL *);

    if (!next && !(next = (int (*)(SSL *)) dlsym(RTLD_NEXT, "SSL_connect")))
        die("no SSL_connect to call");
    if (SSL_in_before(ssl)) {
        if (getenv("TLS_NO_RESUMPTION"))
            SSL_set_session(ssl, NULL);
        SSL_set_ex_data(ssl, start_index, (void *)(uintptr_t)now_us());
    }
    int result = next(ssl);
    if (result == 1) {
        uint64_t took = now_us() - (uint64_t)(uintptr_t)SSL_get_ex_data(ssl, start_index);
        if (handshakes < MAX_SAMPLES)
            samples[handshakes] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
        handshakes++;
        resumed += SSL_session_reused(ssl) ? 1 : 0;
        if (!version[0]) {
            const char *name = OBJ_nid2sn(SSL_get_negotiated_group(ssl) & 0xffff);
            snprintf(version, sizeof version, "%s", SSL_get_version(ssl));
            snprintf(cipher, sizeof cipher, "%s", SSL_get_cipher_name(ssl));
            snprintf(group, sizeof group, "%s", name ? name : "unknown");
        }
    } else {
        int error = SSL_get_error(ssl, result);
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            failed++;
    }
    return result;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("TLS_REPORT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file)
        return;
    size_t n = handshakes < MAX_SAMPLES ? handshakes : MAX_SAMPLES;
    qsort(samples, n, sizeof *samples, ascending);
    fprintf(file,
            "{\"handshakes\":%lu,\"resumed\":%lu,\"failed\":%lu,\"version\":\"%s\","
            "\"cipher\":\"%s\",\"group\":\"%s\",\"p50_us\":%u,\"p99_us\":%u}\n",
            handshakes, resumed, failed, version, cipher, group,
            n ? samples[n / 2] : 0, n ? samples[n - 1 - n / 100] : 0);
    fclose(file);
}
