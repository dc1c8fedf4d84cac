/* Pages of QEMU's stream, each a header and its bytes, many of them in one system call. */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Pages of one writev, of which IOV_MAX allows 512. */
#define PAGES_SENT 512

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

void write_pieces(int fd, struct iovec *pieces, size_t count)
{
    while (count > 0) {
        ssize_t sent = writev(fd, pieces, count);
        if (sent < 0)
            die("writev");
        count = skip_sent(&pieces, count, sent);
    }
}

static void send_batch(int fd, uint8_t *pages, uint64_t offset, size_t count)
{
    static uint8_t headers[PAGES_SENT][HEADER_BYTES];
    static struct iovec pieces[2 * PAGES_SENT];
    for (size_t i = 0; i < count; i++)
        put_header(headers[i], offset + i * PAGE_BYTES);
    write_pieces(fd, pieces, list_pieces(pieces, headers, pages, count));
}

void send_records(int fd, uint8_t *pages, uint64_t offset, size_t count)
{
    for (size_t done = 0; done < count; done += PAGES_SENT) {
        size_t batch = count - done < PAGES_SENT ? count - done : PAGES_SENT;
        send_batch(fd, pages + done * PAGE_BYTES, offset + done * PAGE_BYTES, batch);
    }
}

uint64_t receive_records(int fd, uint8_t *pages, size_t count)
{
    static uint8_t headers[PAGES_RECEIVED][HEADER_BYTES];
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
    return first;
}
