/*
 * Faults while all pages are pushed: two connections, as QEMU has them with postcopy-preempt. All
 * threads sleep when they have nothing to do, and those on the way of a fault run in real time where
 * that is allowed.
 */
#ifndef PUSHED_FAULTS_H
#define PUSHED_FAULTS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

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

/* Memory of either end, in its pages. */
uint8_t *map_pages(const struct setting *setting);
/* For threads on the way of a fault. Where it is not allowed, it is left. */
void favour_this_thread(void);
pthread_t start_thread(void *(*run)(void *), void *argument);

/* The source, until the destination has closed its connections. */
void push_and_answer(const struct setting *setting, int push_fd, int urgent_fd);

#endif
