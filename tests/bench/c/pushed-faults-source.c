/* The source of pushed faults: one thread pushes, and one answers requests. */
#define _GNU_SOURCE
#include "pushed-faults.h"
#include "limit.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

/* What is pushed at once, however large a page is. */
#define CHUNK_BYTES (128 * 1024)
#define RUNS_MAX (CHUNK_BYTES / PAGE_BYTES)

struct source {
    struct setting is;
    int push_fd;
    int urgent_fd;
    uint8_t *memory;
    /* By page: somebody sends it. */
    atomic_bool *taken;
};

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

void push_and_answer(const struct setting *setting, int push_fd, int urgent_fd)
{
    struct source self = { .is = *setting, .push_fd = push_fd, .urgent_fd = urgent_fd };
    self.memory = map_pages(setting);
    fill_random(self.memory, setting->bytes);
    self.taken = calloc(setting->bytes / setting->page_bytes, sizeof(*self.taken));
    if (self.taken == NULL)
        die("calloc");
    pthread_t answering = start_thread(answer_requests, &self);
    uint8_t ready = 1;
    write_all(push_fd, &ready, sizeof(ready));
    read_all(push_fd, &ready, sizeof(ready));
    push(&self);
    pthread_join(answering, NULL);
}
