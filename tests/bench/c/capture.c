/*
 * What a dest does that keeps a guest: its pages come as a QEMU sends them, their sums are reckoned,
 * and both are written into files. There is room for all of it before the first page is taken.
 */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int pages_fd;
static int sums_fd;

static int create(const char *path, const char *suffix)
{
    char name[4096];
    snprintf(name, sizeof(name), "%s%s", path, suffix);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        die(name);
    return fd;
}

static void reserve(int fd, size_t bytes)
{
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes) < 0)
        die("fallocate");
}

static void create_files(const struct move *move)
{
    pages_fd = create(move->file, "");
    sums_fd = create(move->file, ".crc32");
    reserve(sums_fd, move->bytes / PAGE_BYTES * sizeof(uint32_t));
}

static void write_at(int fd, const void *from, size_t bytes, uint64_t offset)
{
    if (pwrite(fd, from, bytes, offset) != (ssize_t)bytes)
        die("pwrite");
}

static void keep_all(const struct move *move, int fd)
{
    static uint8_t pages[PAGES_RECEIVED * PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    static uint32_t sums[PAGES_RECEIVED];
    /* When the source says what will come in postcopy, which it goes on to send at once. */
    reserve(pages_fd, move->bytes);
    for (size_t left = move->bytes / PAGE_BYTES; left > 0;) {
        size_t count = left < PAGES_RECEIVED ? left : PAGES_RECEIVED;
        uint64_t first = receive_records(fd, pages, count);
        for (size_t i = 0; i < count; i++)
            sums[i] = page_sum(pages + i * PAGE_BYTES);
        write_at(pages_fd, pages, count * PAGE_BYTES, first);
        write_at(sums_fd, sums, count * sizeof(*sums), first / PAGE_BYTES * sizeof(*sums));
        left -= count;
    }
}

void run_capture(size_t bytes, const char *file)
{
    const struct end receiver = { create_files, keep_all };
    run_move(&(struct move){ bytes, file }, &sender_of_memory, &receiver);
}
