/*
 * The destination of pushed faults: one thread places what is pushed, one serves the faults, and one is
 * the guest, which writes to pages at random.
 */
#define _GNU_SOURCE
#include "pushed-faults.h"
#include "limit.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE_BYTES (2 * 1024 * 1024)

struct destination {
    struct setting is;
    int push_fd;
    int urgent_fd;
    int userfault;
    uint8_t *memory;
    /* The page that the guest waits for, UINT64_MAX if none; when the push has brought it, 0 if not. */
    _Atomic uint64_t wanted;
    _Atomic double brought;
    /* Readable once no fault can come any more. */
    int ended;
    atomic_bool complete;
    /* Seconds from a fault's event to its page placed. */
    double *served;
    size_t faults;
};

uint8_t *map_pages(const struct setting *setting)
{
    return setting->page_bytes == PAGE_BYTES ? map_memory(setting->bytes) : map_huge(setting->bytes);
}

void favour_this_thread(void)
{
    struct sched_param first = { .sched_priority = 1 };
    sched_setscheduler(0, SCHED_FIFO, &first);
}

pthread_t start_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    errno = pthread_create(&thread, NULL, run, argument);
    if (errno != 0)
        die("pthread_create");
    return thread;
}

static void *place_pushed(void *argument)
{
    struct destination *self = argument;
    uint8_t *pages = map_memory(HUGE_BYTES);
    for (struct run run;;) {
        read_all(self->push_fd, &run, sizeof(run));
        if (run.bytes == 0)
            break;
        if (recv(self->push_fd, pages, run.bytes, MSG_WAITALL) != (ssize_t)run.bytes)
            die("recv");
        place_missing(self->userfault, self->memory + run.offset, pages, run.bytes,
                      self->is.page_bytes);
        uint64_t wanted = atomic_load(&self->wanted);
        if (wanted >= run.offset && wanted < run.offset + run.bytes)
            atomic_store(&self->brought, monotonic_seconds());
    }
    atomic_store(&self->complete, true);
    return NULL;
}

static void fetch(struct destination *self, uint8_t *page, uint64_t offset)
{
    struct run run = { offset, self->is.page_bytes };
    write_all(self->urgent_fd, &run, sizeof(run));
    struct iovec pieces[2] = { { &run, sizeof(run) }, { page, run.bytes } };
    struct msghdr message = { .msg_iov = pieces, .msg_iovlen = 2 };
    ssize_t bytes = sizeof(run) + run.bytes;
    if (recvmsg(self->urgent_fd, &message, MSG_WAITALL) != bytes)
        die("recvmsg");
    place_missing(self->userfault, self->memory + run.offset, page, run.bytes, run.bytes);
}

/* One fault, of which the poll told at `began`. */
static void serve_fault(struct destination *self, uint8_t *page, double began)
{
    struct uffd_msg event;
    /* What the push has brought meanwhile has taken its event with it. */
    if (read(self->userfault, &event, sizeof(event)) != sizeof(event))
        return;
    uint64_t address = event.arg.pagefault.address & ~(uint64_t)(self->is.page_bytes - 1);
    uint64_t offset = address - (uintptr_t)self->memory;
    atomic_store(&self->brought, 0);
    atomic_store(&self->wanted, offset);
    fetch(self, page, offset);
    double placed = monotonic_seconds();
    atomic_store(&self->wanted, UINT64_MAX);
    double brought = atomic_load(&self->brought);
    self->served[self->faults++] = (brought > 0 ? brought : placed) - began;
}

static void *serve_faults(void *argument)
{
    struct destination *self = argument;
    uint8_t *page = map_memory(HUGE_BYTES);
    struct pollfd wanted[2] = {
        { .fd = self->userfault, .events = POLLIN },
        { .fd = self->ended, .events = POLLIN },
    };
    favour_this_thread();
    while (poll(wanted, 2, -1) > 0 && (wanted[1].revents & POLLIN) == 0)
        serve_fault(self, page, monotonic_seconds());
    return NULL;
}

/* Writes to pages at random, also to those that are there, until all are. */
static void be_guest(struct destination *self)
{
    uint64_t state = 88172645463325252;
    size_t pages = self->is.bytes / self->is.page_bytes;
    while (!atomic_load_explicit(&self->complete, memory_order_relaxed)) {
        size_t page = next_random(&state) % pages;
        *(volatile uint64_t *)(self->memory + page * self->is.page_bytes) = state;
    }
}

static void be_destination(const struct setting *setting, int push_fd, int urgent_fd)
{
    struct destination self = { .is = *setting, .push_fd = push_fd, .urgent_fd = urgent_fd };
    self.memory = map_pages(setting);
    self.userfault = open_userfault(self.memory, setting->bytes);
    self.ended = eventfd(0, 0);
    self.wanted = UINT64_MAX;
    self.served = calloc(setting->bytes / setting->page_bytes, sizeof(*self.served));
    if (self.ended < 0 || self.served == NULL)
        die("eventfd");
    uint8_t ready;
    read_all(push_fd, &ready, sizeof(ready));
    pthread_t placing = start_thread(place_pushed, &self);
    pthread_t serving = start_thread(serve_faults, &self);
    double began = monotonic_seconds();
    write_all(push_fd, &ready, sizeof(ready));
    be_guest(&self);
    double seconds = monotonic_seconds() - began;
    pthread_join(placing, NULL);
    uint64_t one = 1;
    write_all(self.ended, &one, sizeof(one));
    pthread_join(serving, NULL);

    printf("{\"bytesPerSecond\": %.0f, ", (double)setting->bytes / seconds);
    print_latencies("servedUs", self.served, self.faults);
    printf("}\n");
}

void run_pushed_faults(size_t bytes, size_t page_bytes, double push_rate)
{
    const struct setting setting = { bytes, page_bytes, push_rate };
    int push_ends[2];
    int urgent_ends[2];
    connect_pair(push_ends);
    connect_pair(urgent_ends);
    pid_t source = fork();
    if (source < 0)
        die("fork");
    if (source == 0) {
        close(push_ends[1]);
        close(urgent_ends[1]);
        push_and_answer(&setting, push_ends[0], urgent_ends[0]);
        _exit(0);
    }
    close(push_ends[0]);
    close(urgent_ends[0]);
    be_destination(&setting, push_ends[1], urgent_ends[1]);
    close(urgent_ends[1]);
    waitpid(source, NULL, 0);
}
