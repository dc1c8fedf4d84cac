#define _GNU_SOURCE
#include "limit.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

uint8_t *map_memory(size_t bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    /* A kernel without transparent huge pages has none to forbid. */
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

uint8_t *map_huge(size_t bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap of huge pages");
    return memory;
}

uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void fill_random(uint8_t *memory, size_t bytes)
{
    uint64_t state = 0x9e3779b97f4a7c15;
    uint64_t *words = (uint64_t *)memory;
    for (size_t i = 0; i < bytes / sizeof(*words); i++)
        words[i] = next_random(&state);
}

static int new_userfault(void)
{
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        return fd;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        die("userfaultfd");
    fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        die("USERFAULTFD_IOC_NEW");
    close(device);
    return fd;
}

int open_userfault(uint8_t *memory, size_t bytes)
{
    int fd = new_userfault();
    struct uffdio_api api = { .api = UFFD_API };
    if (ioctl(fd, UFFDIO_API, &api) < 0)
        die("UFFDIO_API");
    struct uffdio_register registration = {
        .range = { .start = (uintptr_t)memory, .len = bytes },
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    if (ioctl(fd, UFFDIO_REGISTER, &registration) < 0)
        die("UFFDIO_REGISTER");
    return fd;
}

void place(int userfault, uint8_t *to, const uint8_t *from, size_t bytes)
{
    struct uffdio_copy copy = { .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = bytes };
    if (ioctl(userfault, UFFDIO_COPY, &copy) < 0)
        die("UFFDIO_COPY");
}

void place_missing(int userfault, uint8_t *to, const uint8_t *from, size_t bytes, size_t page_bytes)
{
    for (size_t done = 0; done < bytes;) {
        struct uffdio_copy copy = {
            .dst = (uintptr_t)to + done,
            .src = (uintptr_t)from + done,
            .len = bytes - done,
        };
        if (ioctl(userfault, UFFDIO_COPY, &copy) == 0)
            return;
        if (copy.copy > 0)
            done += copy.copy;
        else if (errno == EEXIST)
            done += page_bytes;
        else if (errno != EAGAIN)
            die("UFFDIO_COPY");
    }
}

void connect_pair(int ends[2])
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof(address);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 ||
        listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        die("listen");
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (ends[0] < 0 || connect(ends[0], (struct sockaddr *)&address, length) < 0)
        die("connect");
    ends[1] = accept(listener, NULL, NULL);
    if (ends[1] < 0)
        die("accept");
    close(listener);
    for (int end = 0; end < 2; end++) {
        int on = 1;
        if (setsockopt(ends[end], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
            die("TCP_NODELAY");
    }
}

void read_all(int fd, void *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t got = read(fd, (uint8_t *)to + done, bytes - done);
        if (got <= 0)
            die("read");
        done += got;
    }
}

void write_all(int fd, const void *from, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t sent = write(fd, (const uint8_t *)from + done, bytes - done);
        if (sent < 0)
            die("write");
        done += sent;
    }
}

void put_header(uint8_t *header, uint64_t offset)
{
    uint64_t word = htobe64(offset | FLAG_PAGE | FLAG_CONTINUE);
    memcpy(header, &word, sizeof(word));
}

uint64_t header_offset(const uint8_t *header)
{
    uint64_t word;
    memcpy(&word, header, sizeof(word));
    return be64toh(word) & ~(uint64_t)(PAGE_BYTES - 1);
}

double monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec +
           (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}
