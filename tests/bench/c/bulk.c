/* All pages, one after the other, in as few system calls as there can be. */
#define _GNU_SOURCE
#include "limit.h"

static uint8_t *sent;
static uint8_t *received;
static int userfault;

static void fill(const struct move *move)
{
    sent = map_memory(move->bytes);
    fill_random(sent, move->bytes);
}

static void send_all(const struct move *move, int fd)
{
    send_records(fd, sent, 0, move->bytes / PAGE_BYTES);
}

const struct end sender_of_memory = { fill, send_all };

static void register_memory(const struct move *move)
{
    received = map_memory(move->bytes);
    userfault = open_userfault(received, move->bytes);
}

static void place_all(const struct move *move, int fd)
{
    static uint8_t pages[PAGES_RECEIVED * PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    for (size_t left = move->bytes / PAGE_BYTES; left > 0;) {
        size_t count = left < PAGES_RECEIVED ? left : PAGES_RECEIVED;
        uint64_t first = receive_records(fd, pages, count);
        place(userfault, received + first, pages, count * PAGE_BYTES);
        left -= count;
    }
}

void run_bulk(size_t bytes)
{
    const struct end receiver = { register_memory, place_all };
    run_move(&(struct move){ .bytes = bytes }, &sender_of_memory, &receiver);
}
