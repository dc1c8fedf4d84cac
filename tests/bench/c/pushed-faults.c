/*
 * Faults while all pages are pushed: two connections, as QEMU has them with postcopy-preempt. At the
 * source one thread pushes and one answers requests; at the destination one places what is pushed, one
 * serves the faults, and one is the guest, which writes to pages at random. All of them sleep when they
 * have nothing to do, and those on the way of a fault run in real time where that is allowed.
 */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What is pushed at once, however large a page is. */
#define CHUNK_BYTES (128 * 1024)
#define HUGE_BYTES (2 * 1024 * 1024)
#define RUNS_MAX (CHUNK_BYTES / PAGE_BYTES)

/* Pages that lie one behind the other; none: the end. */
struct run {
    uint64_t offset;
    uint64_t bytes;
};

struct setting {
    size_t bytes;
    size_t page_bytes;
    /* Bytes a second, 0 without limit. */
    double push_rate;
};

struct source {
    struct setting is;
    int push_fd;
    int urgent_fd;
    uint8_t *memory;
    /* By page: somebody sends it. */
    atomic_bool *taken;
};

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

static uint8_t *map_pages(const struct setting *is)
{
    return is->page_bytes == PAGE_BYTES ? map_memory(is->bytes) : map_huge(is->bytes);
}

/* On the way of a fault. Where it is not allowed, it is left. */
static void favour_this_thread(void)
{
    struct sched_param first = { .sched_priority = 1 };
    sched_setscheduler(0, SCHED_FIFO, &first);
}

static pthread_t start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    errno = pthread_create(&thread, NULL, run, argument);
    if (errno != 0)
        die("pthread_create");
    return thread;
}

/* The runs of the next chunk, from a page on, which nobody else sends then; gives the page behind. */
static size_t take_chunk(struct source *self, size_t page, struct run *runs, size_t *count)
{
    size_t size = self->is.page_bytes;
    size_t end = self->is.bytes / size;
    size_t left = size > CHUNK_BYTES ? 1 : CHUNK_BYTES / size;
    *count = 0;
    for (; page < end && left > 0; page++) {
        if (atomic_exchange(&self->taken[page], true))
            continue;
        left--;
        struct run *last = *count == 0 ? NULL : &runs[*count - 1];
        if (last != NULL && last->offset + last->bytes == page * size)
            last->bytes += size;
        else
            runs[(*count)++] = (struct run){ page * size, size };
    }
    return page;
}

static size_t send_runs(struct source *self, struct run *runs, size_t count)
{
    struct iovec pieces[2 * RUNS_MAX];
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        pieces[2 * i] = (struct iovec){ &runs[i], sizeof(runs[i]) };
        pieces[2 * i + 1] = (struct iovec){ self->memory + runs[i].offset, runs[i].bytes };
        bytes += sizeof(runs[i]) + runs[i].bytes;
    }
    write_pieces(self->push_fd, pieces, 2 * count);
    return bytes;
}

static void sleep_until(double seconds)
{
    struct timespec then = { .tv_sec = (time_t)seconds };
    then.tv_nsec = (long)((seconds - (double)then.tv_sec) * 1e9);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL) == EINTR)
        ;
}

/* Evenly: a chunk, and then nothing until the next is due. */
static void push(struct source *self)
{
    struct run runs[RUNS_MAX];
    size_t count;
    double due = monotonic_seconds();
    for (size_t page = 0; page < self->is.bytes / self->is.page_bytes;) {
        page = take_chunk(self, page, runs, &count);
        size_t bytes = send_runs(self, runs, count);
        if (self->is.push_rate == 0)
            continue;
        due += (double)bytes / self->is.push_rate;
        sleep_until(due);
    }
    struct run end = { 0 };
    write_all(self->push_fd, &end, sizeof(end));
}

/* Also what is under way among the push already: it would come later. */
static void *answer_requests(void *argument)
{
    struct source *self = argument;
    struct run wanted;
    favour_this_thread();
    while (recv(self->urgent_fd, &wanted, sizeof(wanted), MSG_WAITALL) == sizeof(wanted)) {
        atomic_store(&self->taken[wanted.offset / self->is.page_bytes], true);
        struct iovec pieces[2] = {
            { &wanted, sizeof(wanted) },
            { self->memory + wanted.offset, wanted.bytes },
        };
        write_pieces(self->urgent_fd, pieces, 2);
    }
    return NULL;
}

static void be_source(const struct setting *setting, int push_fd, int urgent_fd)
{
    struct source self = { .is = *setting, .push_fd = push_fd, .urgent_fd = urgent_fd };
    self.memory = map_pages(setting);
    fill_random(self.memory, setting->bytes);
    self.taken = calloc(setting->bytes / setting->page_bytes, sizeof(*self.taken));
    if (self.taken == NULL)
        die("calloc");
    pthread_t answering = start(answer_requests, &self);
    uint8_t ready = 1;
    write_all(push_fd, &ready, sizeof(ready));
    read_all(push_fd, &ready, sizeof(ready));
    push(&self);
    pthread_join(answering, NULL);
    _exit(0);
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
    pthread_t placing = start(place_pushed, &self);
    pthread_t serving = start(serve_faults, &self);
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
        be_source(&setting, push_ends[0], urgent_ends[0]);
    }
    close(push_ends[0]);
    close(urgent_ends[0]);
    be_destination(&setting, push_ends[1], urgent_ends[1]);
    close(urgent_ends[1]);
    waitpid(source, NULL, 0);
}
