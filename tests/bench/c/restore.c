/*
 * What a source does that serves a kept guest: it reads pages from a file, compares their sums, and
 * sends the very copies that it has compared. The receiver is what a QEMU is: it reads 32 KiB at a time,
 * and places pages one by one from where they lie in its buffer.
 */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Bytes that a QEMU reads at once. */
#define BUFFER_BYTES 32768

static int pages_fd;
static uint32_t *sums;
static uint8_t *memory;
static int userfault;

/* The file is written before the clock runs. */
static void keep(const struct move *move)
{
    uint8_t *kept = map_memory(move->bytes);
    fill_random(kept, move->bytes);
    pages_fd = open(move->file, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (pages_fd < 0)
        die(move->file);
    write_all(pages_fd, kept, move->bytes);
    size_t pages = move->bytes / PAGE_BYTES;
    sums = malloc(pages * sizeof(*sums));
    if (sums == NULL)
        die("malloc");
    for (size_t page = 0; page < pages; page++)
        sums[page] = page_sum(kept + page * PAGE_BYTES);
    munmap(kept, move->bytes);
}

static void read_pages(uint8_t *pages, size_t first, size_t count)
{
    size_t bytes = count * PAGE_BYTES;
    if (pread(pages_fd, pages, bytes, first * PAGE_BYTES) != (ssize_t)bytes)
        die("pread");
    for (size_t i = 0; i < count; i++) {
        if (page_sum(pages + i * PAGE_BYTES) != sums[first + i]) {
            errno = EIO;
            die("a page that does not have its sum");
        }
    }
}

static void send_kept(const struct move *move, int fd)
{
    static uint8_t pages[PAGES_RECEIVED * PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    size_t end = move->bytes / PAGE_BYTES;
    for (size_t first = 0; first < end; first += PAGES_RECEIVED) {
        size_t count = end - first < PAGES_RECEIVED ? end - first : PAGES_RECEIVED;
        read_pages(pages, first, count);
        send_records(fd, pages, first * PAGE_BYTES, count);
    }
}

static void register_memory(const struct move *move)
{
    memory = map_memory(move->bytes);
    userfault = open_userfault(memory, move->bytes);
}

/* Places the whole records of the buffer; gives how many bytes they are. */
static size_t place_records(const uint8_t *buffer, size_t bytes)
{
    size_t at = 0;
    for (; bytes - at >= HEADER_BYTES + PAGE_BYTES; at += HEADER_BYTES + PAGE_BYTES)
        place(userfault, memory + header_offset(buffer + at), buffer + at + HEADER_BYTES,
              PAGE_BYTES);
    return at;
}

static void place_one_by_one(const struct move *move, int fd)
{
    static uint8_t buffer[BUFFER_BYTES];
    size_t left = move->bytes / PAGE_BYTES * (HEADER_BYTES + PAGE_BYTES);
    for (size_t held = 0; left > 0;) {
        ssize_t got = read(fd, buffer + held, sizeof(buffer) - held);
        if (got <= 0)
            die("read");
        held += got;
        size_t placed = place_records(buffer, held);
        held -= placed;
        left -= placed;
        memmove(buffer, buffer + placed, held);
    }
}

void run_restore(size_t bytes, const char *file)
{
    const struct end sender = { keep, send_kept };
    const struct end receiver = { register_memory, place_one_by_one };
    run_move(&(struct move){ bytes, file }, &sender, &receiver);
}
