/*
 * What plain C reaches on this machine, for comparison: two processes, a TCP connection on the loopback,
 * and memory whose missing pages come through userfaultfd. Nothing is reported but at the end, as JSON.
 */
#ifndef LIMIT_H
#define LIMIT_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096
/* A page of QEMU's stream: its offset in the block with flags in the low bits, big-endian. */
#define HEADER_BYTES 8
#define FLAG_PAGE 0x08
#define FLAG_CONTINUE 0x20

/* Ends the process with the name of what failed and why. */
void die(const char *what);

/* Anonymous memory in small pages, as dirty tracking and placing both want them. */
uint8_t *map_memory(size_t bytes);
/* Words that look random: no page is zero or like another. */
void fill_random(uint8_t *memory, size_t bytes);

/* A userfaultfd that the missing pages of the memory fault to. */
int open_userfault(uint8_t *memory, size_t bytes);
/* Places whole pages; they are not there yet. */
void place(int userfault, uint8_t *to, const uint8_t *from, size_t bytes);

/* Two ends of a connection over the loopback, without Nagle's delay. */
void connect_pair(int ends[2]);
void read_all(int fd, void *to, size_t bytes);
void write_all(int fd, const void *from, size_t bytes);

void put_header(uint8_t *header, uint64_t offset);
uint64_t header_offset(const uint8_t *header);

double monotonic_seconds(void);
/* User and system time of this process so far. */
double cpu_seconds(void);

/* All of the memory from one process to the other. */
void run_bulk(size_t bytes);
/* One page at a time, when it is touched. */
void run_faults(size_t bytes, size_t touches, int spinning);

#endif
