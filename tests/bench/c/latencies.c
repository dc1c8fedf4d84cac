/* Latencies as QEMU tells them, and their percentiles. */
#include "limit.h"

#include <stdio.h>
#include <stdlib.h>

/* Of QEMU's postcopy-latency-dist: bucket N counts [2^N, 2^(N+1)) microseconds. */
#define BUCKETS 24

static int compare(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

void print_latencies(const char *name, double *seconds, size_t count)
{
    size_t buckets[BUCKETS] = { 0 };
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        int bucket = 0;
        sum += seconds[i];
        for (double us = seconds[i] * 1e6; us >= 2 && bucket < BUCKETS - 1; us /= 2)
            bucket++;
        buckets[bucket]++;
    }
    qsort(seconds, count, sizeof(*seconds), compare);
    printf("\"%s\": {\"mean\": %.3f, \"p50\": %.3f, \"p99\": %.3f, \"buckets\": [", name,
           sum / count * 1e6, seconds[count / 2] * 1e6, seconds[count * 99 / 100] * 1e6);
    for (int i = 0; i < BUCKETS; i++)
        printf("%s%zu", i == 0 ? "" : ", ", buckets[i]);
    printf("]}");
}
