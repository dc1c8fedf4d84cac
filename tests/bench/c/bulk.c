/* All pages, one after the other, in as few system calls as there can be. */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Pages of one writev, of which IOV_MAX allows 512, and of one recvmsg and one UFFDIO_COPY: the most that
 * is still in a near cache when it is placed. Of 16 to 256 this was the fastest. */
#define PAGES_SENT 512
#define PAGES_RECEIVED 128

/* Pieces of a batch: header and page by turns. */
static size_t list_pieces(struct iovec *pieces, uint8_t (*headers)[HEADER_BYTES], uint8_t *pages,
                          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pieces[2 * i] = (struct iovec){ headers[i], HEADER_BYTES };
        pieces[2 * i + 1] = (struct iovec){ pages + i * PAGE_BYTES, PAGE_BYTES };
    }
    return 2 * count;
}

/* Leaves what is still to be sent; gives its number of pieces. */
static size_t skip_sent(struct iovec **pieces, size_t count, size_t sent)
{
    while (count > 0 && sent >= (*pieces)->iov_len) {
        sent -= (*pieces)->iov_len;
        (*pieces)++;
        count--;
    }
    if (count > 0) {
        (*pieces)->iov_base = (uint8_t *)(*pieces)->iov_base + sent;
        (*pieces)->iov_len -= sent;
    }
    return count;
}

static void send_batch(int fd, uint8_t *memory, size_t offset, size_t count)
{
    static uint8_t headers[PAGES_SENT][HEADER_BYTES];
    static struct iovec list[2 * PAGES_SENT];
    for (size_t i = 0; i < count; i++)
        put_header(headers[i], offset + i * PAGE_BYTES);
    struct iovec *pieces = list;
    size_t left = list_pieces(pieces, headers, memory + offset, count);
    while (left > 0) {
        ssize_t sent = writev(fd, pieces, left);
        if (sent < 0)
            die("writev");
        left = skip_sent(&pieces, left, sent);
    }
}

static void receive_batch(int fd, int userfault, uint8_t *memory, size_t count)
{
    static uint8_t headers[PAGES_RECEIVED][HEADER_BYTES];
    static uint8_t pages[PAGES_RECEIVED * PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    static struct iovec pieces[2 * PAGES_RECEIVED];
    struct msghdr message = { .msg_iov = pieces };
    message.msg_iovlen = list_pieces(pieces, headers, pages, count);
    size_t bytes = count * (HEADER_BYTES + PAGE_BYTES);
    /* With MSG_WAITALL it is all of them, or the end. */
    if (recvmsg(fd, &message, MSG_WAITALL) != (ssize_t)bytes)
        die("recvmsg");
    uint64_t first = header_offset(headers[0]);
    for (size_t i = 1; i < count; i++) {
        if (header_offset(headers[i]) != first + i * PAGE_BYTES) {
            errno = EPROTO;
            die("a page out of order");
        }
    }
    place(userfault, memory + first, pages, count * PAGE_BYTES);
}

static void receive_all(int fd, size_t bytes)
{
    uint8_t *memory = map_memory(bytes);
    int userfault = open_userfault(memory, bytes);
    uint8_t ready = 1;
    write_all(fd, &ready, sizeof(ready));
    double before = cpu_seconds();
    for (size_t left = bytes / PAGE_BYTES; left > 0;) {
        size_t count = left < PAGES_RECEIVED ? left : PAGES_RECEIVED;
        receive_batch(fd, userfault, memory, count);
        left -= count;
    }
    double used = cpu_seconds() - before;
    write_all(fd, &used, sizeof(used));
}

void run_bulk(size_t bytes)
{
    int ends[2];
    connect_pair(ends);
    pid_t receiver = fork();
    if (receiver < 0)
        die("fork");
    if (receiver == 0) {
        close(ends[0]);
        receive_all(ends[1], bytes);
        _exit(0);
    }
    close(ends[1]);
    uint8_t *memory = map_memory(bytes);
    fill_random(memory, bytes);
    uint8_t ready;
    read_all(ends[0], &ready, sizeof(ready));

    double began = monotonic_seconds();
    double before = cpu_seconds();
    size_t pages = bytes / PAGE_BYTES;
    for (size_t page = 0; page < pages; page += PAGES_SENT) {
        size_t count = pages - page < PAGES_SENT ? pages - page : PAGES_SENT;
        send_batch(ends[0], memory, page * PAGE_BYTES, count);
    }
    double used = cpu_seconds() - before;
    double theirs;
    read_all(ends[0], &theirs, sizeof(theirs));
    double seconds = monotonic_seconds() - began;
    waitpid(receiver, NULL, 0);

    printf("{\"bytes\": %zu, \"seconds\": %.6f, \"cpuSeconds\": %.6f}\n",
           pages * (HEADER_BYTES + PAGE_BYTES), seconds, used + theirs);
}
