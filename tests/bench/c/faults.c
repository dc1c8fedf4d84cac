/*
 * One page at a time: a thread touches a missing page, the thread of the userfaultfd asks the other
 * process for it, is sent it, and places it. Nothing else is on the way.
 */
#define _GNU_SOURCE
#include "limit.h"

#include <linux/userfaultfd.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct receiver {
    int fd;
    int userfault;
    int spinning;
    uint8_t *memory;
    size_t touches;
    /* Seconds from a fault's event to its page placed. */
    double *served;
};

/* As long as a REQ_PAGES of QEMU that names no block. */
struct request {
    uint16_t type;
    uint16_t length;
    uint32_t bytes;
    uint64_t offset;
};

/* Waits until there is something to read: by asking again and again, or asleep. */
static void await_input(int fd, int spinning)
{
    struct pollfd wanted = { .fd = fd, .events = POLLIN };
    while (poll(&wanted, 1, spinning ? 0 : -1) == 0)
        ;
}

static void fetch(struct receiver *self, uint64_t offset)
{
    static uint8_t page[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    uint8_t header[HEADER_BYTES];
    struct request request = { .type = 3, .length = 12, .bytes = PAGE_BYTES, .offset = offset };
    write_all(self->fd, &request, sizeof(request));
    await_input(self->fd, self->spinning);
    struct iovec pieces[2] = { { header, sizeof(header) }, { page, sizeof(page) } };
    struct msghdr message = { .msg_iov = pieces, .msg_iovlen = 2 };
    if (recvmsg(self->fd, &message, MSG_WAITALL) != HEADER_BYTES + PAGE_BYTES)
        die("recvmsg");
    place(self->userfault, self->memory + header_offset(header), page, PAGE_BYTES);
}

static void *serve_faults(void *argument)
{
    struct receiver *self = argument;
    for (size_t fault = 0; fault < self->touches; fault++) {
        struct uffd_msg event;
        await_input(self->userfault, self->spinning);
        double began = monotonic_seconds();
        if (read(self->userfault, &event, sizeof(event)) != sizeof(event))
            die("read of a userfaultfd");
        uint64_t address = event.arg.pagefault.address & ~(uint64_t)(PAGE_BYTES - 1);
        fetch(self, address - (uintptr_t)self->memory);
        self->served[fault] = monotonic_seconds() - began;
    }
    return NULL;
}

static void send_pages(int fd, size_t bytes, int spinning)
{
    uint8_t *memory = map_memory(bytes);
    fill_random(memory, bytes);
    uint8_t ready = 1;
    write_all(fd, &ready, sizeof(ready));
    for (;;) {
        struct request request;
        await_input(fd, spinning);
        ssize_t got = recv(fd, &request, sizeof(request), MSG_WAITALL);
        if (got == 0)
            _exit(0);
        if (got != sizeof(request))
            die("recv");
        uint8_t header[HEADER_BYTES];
        put_header(header, request.offset);
        struct iovec pieces[2] = {
            { header, sizeof(header) },
            { memory + request.offset, PAGE_BYTES },
        };
        /* A single page fits into the buffer of a socket that is empty. */
        if (writev(fd, pieces, 2) != HEADER_BYTES + PAGE_BYTES)
            die("writev");
    }
}

/* Pages in an order that looks random, none twice. */
static size_t *shuffled_pages(size_t pages)
{
    size_t *order = malloc(pages * sizeof(*order));
    if (order == NULL)
        die("malloc");
    uint64_t state = 88172645463325252;
    for (size_t i = 0; i < pages; i++)
        order[i] = i;
    for (size_t i = pages - 1; i > 0; i--) {
        size_t other = next_random(&state) % (i + 1);
        size_t kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    return order;
}

void run_faults(size_t bytes, size_t touches, int spinning)
{
    int ends[2];
    connect_pair(ends);
    pid_t sender = fork();
    if (sender < 0)
        die("fork");
    if (sender == 0) {
        close(ends[1]);
        send_pages(ends[0], bytes, spinning);
    }
    close(ends[0]);
    size_t *order = shuffled_pages(bytes / PAGE_BYTES);
    double *touched = calloc(touches, sizeof(*touched));
    struct receiver self = { .fd = ends[1], .spinning = spinning, .touches = touches };
    self.memory = map_memory(bytes);
    self.userfault = open_userfault(self.memory, bytes);
    self.served = calloc(touches, sizeof(*self.served));
    if (touched == NULL || self.served == NULL)
        die("calloc");
    uint8_t ready;
    read_all(self.fd, &ready, sizeof(ready));
    pthread_t thread;
    errno = pthread_create(&thread, NULL, serve_faults, &self);
    if (errno != 0)
        die("pthread_create");

    for (size_t i = 0; i < touches; i++) {
        double began = monotonic_seconds();
        (void)*(volatile uint8_t *)(self.memory + order[i] * PAGE_BYTES);
        touched[i] = monotonic_seconds() - began;
    }
    pthread_join(thread, NULL);
    close(self.fd);
    waitpid(sender, NULL, 0);

    printf("{\"touches\": %zu, ", touches);
    print_latencies("touchedUs", touched, touches);
    printf(", ");
    print_latencies("servedUs", self.served, touches);
    printf("}\n");
}
