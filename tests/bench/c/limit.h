/*
 * What plain C reaches on this machine, for comparison: two processes, a TCP connection on the loopback,
 * and memory whose missing pages come through userfaultfd. Nothing is reported but at the end, as JSON.
 */
#ifndef LIMIT_H
#define LIMIT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define PAGE_BYTES 4096
/* A page of QEMU's stream: its offset in the block with flags in the low bits, big-endian. */
#define HEADER_BYTES 8
#define FLAG_PAGE 0x08
#define FLAG_CONTINUE 0x20

/* Pages of one recvmsg, and of what is done with them then: the most that is still in a near cache.
 * Of 16 to 256 this was the fastest. */
#define PAGES_RECEIVED 128

/* Ends the process with the name of what failed and why. */
void die(const char *what);

/* Anonymous memory in small pages, as dirty tracking and placing both want them. */
uint8_t *map_memory(size_t bytes);
/* Anonymous memory in huge pages of the host's pool. */
uint8_t *map_huge(size_t bytes);
/* Words that look random: no page is zero or like another. */
void fill_random(uint8_t *memory, size_t bytes);
/* The next number that looks random, after one that is not 0. */
uint64_t next_random(uint64_t *state);

/* A userfaultfd that the missing pages of the memory fault to. */
int open_userfault(uint8_t *memory, size_t bytes);
/* Places whole pages; they are not there yet. */
void place(int userfault, uint8_t *to, const uint8_t *from, size_t bytes);
/* Places those that are not there yet. */
void place_missing(int userfault, uint8_t *to, const uint8_t *from, size_t bytes,
                   size_t page_bytes);

/* Two ends of a connection over the loopback, without Nagle's delay. */
void connect_pair(int ends[2]);
void read_all(int fd, void *to, size_t bytes);
void write_all(int fd, const void *from, size_t bytes);
/* All of the pieces, which it changes. */
void write_pieces(int fd, struct iovec *pieces, size_t count);

void put_header(uint8_t *header, uint64_t offset);
uint64_t header_offset(const uint8_t *header);
/* Pages that lie one behind the other, the first of them at this offset of their block. */
void send_records(int fd, uint8_t *pages, uint64_t offset, size_t count);
/* Up to PAGES_RECEIVED pages that follow each other; gives the offset of the first. */
uint64_t receive_records(int fd, uint8_t *pages, size_t count);

/* CRC-32 of a page. */
uint32_t page_sum(const uint8_t *page);

double monotonic_seconds(void);
/* User and system time of this process so far. */
double cpu_seconds(void);

/* What is moved. */
struct move {
    size_t bytes;
    /* The file that it comes from or goes to, if any. */
    const char *file;
};

/* One end of a move: what it does before the clock runs, and then. */
struct end {
    void (*prepare)(const struct move *move);
    void (*run)(const struct move *move, int fd);
};

/* Runs both ends; prints the time from the first byte to the receiver's end, and their CPU time. */
void run_move(const struct move *move, const struct end *sender, const struct end *receiver);

/* Sends records of what lies in its memory. */
extern const struct end sender_of_memory;

/* Microseconds of `count` latencies, which it sorts, as a member of a JSON object. */
void print_latencies(const char *name, double *seconds, size_t count);

/* All of the memory from one process to the other. */
void run_bulk(size_t bytes);
/* From one process into a file, with the sum of each page beside it. */
void run_capture(size_t bytes, const char *file);
/* From a file, whose sums are compared, into a process that places pages one by one. */
void run_restore(size_t bytes, const char *file);
/* One page at a time, when it is touched. */
void run_faults(size_t bytes, size_t touches, int spinning);
/* Pages when they are touched, while all are pushed: so many bytes a second, 0 without limit. */
void run_pushed_faults(size_t bytes, size_t page_bytes, double push_rate);

#endif
