/*
 * A TCP relay that does nothing else: what the kernel's way costs any proxy that
 * copies bytes through user space. One thread, one epoll, 64 KiB a direction.
 *
 *   cc -O2 bare.c -o bare
 *   bare PORT BACKEND_PORT        (both on 127.0.0.1; runs until it is killed)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE (64 << 10)

/* One end of a relayed connection, and what it has sent and its peer not taken. */
struct end {
    int fd;
    struct end *peer;
    int sent, received, finished;
    char buffer[SIZE];
};

static int ring;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static struct end *end_of(int fd)
{
    int on = 1;
    struct end *end = calloc(1, sizeof *end);
    if (!end)
        die("calloc");
    end->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return end;
}

static void watch(struct end *end)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = end};
    if (epoll_ctl(ring, EPOLL_CTL_ADD, end->fd, &event))
        die("epoll_ctl");
}

/* Moves bytes from one end to its peer until one of them would wait. Returns 0
 * when the connection is over. */
static int move(struct end *from)
{
    for (;;) {
        while (from->sent < from->received) {
            ssize_t n = send(from->peer->fd, from->buffer + from->sent, from->received - from->sent,
                             MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0)
                return errno == EAGAIN;
            from->sent += n;
        }
        if (from->finished)
            return 1;
        ssize_t n = recv(from->fd, from->buffer, SIZE, MSG_DONTWAIT);
        if (n < 0)
            return errno == EAGAIN;
        if (n == 0) {
            from->finished = 1;
            shutdown(from->peer->fd, SHUT_WR);
            return !from->peer->finished;
        }
        from->sent = 0;
        from->received = n;
        /* Less than asked for: there was no more, and the edge will tell. */
        if (n < SIZE) {
            ssize_t m = send(from->peer->fd, from->buffer, n, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (m < 0 && errno != EAGAIN)
                return 0;
            from->sent = m < 0 ? 0 : m;
            return 1;
        }
    }
}

int main(int count, char **arguments)
{
    if (count != 3) {
        fprintf(stderr, "usage: bare PORT BACKEND_PORT\n");
        return 2;
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in here = loopback(arguments[1]), there = loopback(arguments[2]);
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 4096))
        die("listen");
    ring = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(ring, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(ring, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            struct end *end = events[i].data.ptr;
            if (!end) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0)
                    continue;
                int backend = socket(AF_INET, SOCK_STREAM, 0);
                if (connect(backend, (void *)&there, sizeof there))
                    die("connect");
                struct end *client = end_of(fd), *server = end_of(backend);
                client->peer = server;
                server->peer = client;
                watch(client);
                watch(server);
                continue;
            }
            if (end->fd < 0)
                continue;
            if (!move(end) || !move(end->peer)) {
                /* Never freed: an event for it may be among those at hand. */
                close(end->fd);
                close(end->peer->fd);
                end->fd = end->peer->fd = -1;
            }
        }
    }
}
