/*
 * A virtual machine monitor without a machine: it maps memory, hands its userfaultfd over exactly as
 * Firecracker does, and lets threads read all of it, as vCPUs would. Whoever writes a VMM can start
 * from it; the tests of postcopy check with it that every byte is right.
 *
 *     cc -O2 -pthread -o vmm examples/vmm.c
 *     ./vmm SOCKET --expect MEMORY_FILE [options]
 *
 *     --expect FILE      what the memory must hold; its size is the guest's
 *     --regions N        hand the memory over as N regions of its address space (1)
 *     --page-size BYTES  4096, or 2097152 for hugetlbfs (4096)
 *     --threads N        threads that read (1)
 *     --discard N        ranges that are given back meanwhile, as a balloon does (0)
 *     --pace N           microseconds from one such range to the next (0)
 *     --dontneed         with --memfd: by MADV_DONTNEED, which leaves in the file what is there
 *     --memfd            the memory is a memory file, as it is shared with device back ends
 *     --cached N         every Nth page of that file is there before the handover (0: none)
 *     --change WHAT      once a quarter was read, the last region is: moved to another address
 *                        ("remap"); without its second half ("unmap"). Or the VMM does what nobody
 *                        can fill memory under: "fork", "protect" (UFFDIO_WRITEPROTECT)
 *     --generation N     of Firecracker's message: 1 no page size, 2 page_size_kib, 3 both, 4 page_size (4)
 *     --pieces N         bytes of the message that are sent at once (all)
 *     --wait             reads nothing before a line comes on standard input
 *     --first N          each thread reads N pages, then waits for a line on standard input
 *     --early            reads before it hands over, which it does when a line has come
 *     --hold             when all was read: waits for a line on standard input before it ends
 *
 * It prints one line of JSON: pages read, wrong bytes, ranges discarded, and how long first touches
 * took (counts of [2^N, 2^(N+1)) microseconds). Exit code 1: a byte was wrong. 2: it could not begin.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SMALL_PAGE = 4096, REGIONS_MAX = 64, THREADS_MAX = 64, BUCKETS = 24, DISCARD_PAGES_MAX = 64 };

/* What may be expected of a page. It only ever moves on. */
enum { AS_SAVED, BEING_DISCARDED, ZERO };

struct region {
    uint8_t *memory;
    size_t length;
    size_t offset; /* into the memory file */
};

static const char *socket_path, *expect_path;
static size_t page_size = SMALL_PAGE, guest_bytes;
static unsigned region_count = 1, thread_count = 1, discards, generation = 4;
static size_t piece_bytes = SIZE_MAX;
static int hold, wait_first, early, in_file, discard_keeps;
static unsigned cached, pace_us;
static size_t first_pages = SIZE_MAX;
static pthread_once_t line_was_read = PTHREAD_ONCE_INIT;

/* What becomes of the last region while the others are read. */
enum change { NOTHING, REMAP, UNMAP, FORK, PROTECT };
static const char *const change_names[] = {"nothing", "remap", "unmap", "fork", "protect"};
static enum change change;
static size_t pages_mapped; /* once it has changed: those behind are no memory any more */
static _Atomic int has_changed;

static struct region regions[REGIONS_MAX];
static const uint8_t *expected;
static _Atomic uint8_t *state; /* by page of page_size */
static _Atomic uint64_t pages_read, wrong_pages, discarded, first_touches[BUCKETS];
static _Atomic int reading_is_over;

static void fail(const char *what)
{
    fprintf(stderr, "vmm: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Which of the pages the change is about. */
static int may_change(size_t page)
{
    if (change != REMAP && change != UNMAP)
        return 0;
    return page * page_size >= regions[region_count - 1].offset;
}

/* A small generator: each thread has its own state, so runs can be repeated. */
static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static uint8_t *page_at(size_t page)
{
    size_t offset = page * page_size;
    for (unsigned i = 0; i < region_count; i++) {
        if (offset >= regions[i].offset && offset < regions[i].offset + regions[i].length)
            return regions[i].memory + (offset - regions[i].offset);
    }
    abort();
}

static void note_touch(uint64_t ns)
{
    unsigned bucket = 0;
    for (uint64_t us = ns / 1000; us > 1 && bucket < BUCKETS - 1; us /= 2)
        bucket++;
    atomic_fetch_add(&first_touches[bucket], 1);
}

static int is_zero(const uint8_t *bytes, size_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/*
 * Reads a page and compares it. A page that is discarded while it is read may have either content,
 * and is not judged; once the discard is over nothing but zeros is right, for ever.
 */
static void check_page(size_t page, int measure)
{
    const volatile uint8_t *at = page_at(page);
    uint8_t before = atomic_load(&state[page]);
    uint64_t began = measure ? now_ns() : 0;
    uint8_t first = *at;
    if (measure && before == AS_SAVED)
        note_touch(now_ns() - began);
    (void)first;
    int as_saved = memcmp((const void *)at, expected + page * page_size, page_size) == 0;
    int zero = is_zero((const void *)at, page_size);
    uint8_t after = atomic_load(&state[page]);
    atomic_fetch_add(&pages_read, 1);
    int right = before != after || after == BEING_DISCARDED || (after == ZERO ? zero : as_saved);
    /* It is in the file as it was saved, or never came: but it does not change. */
    if (discard_keeps && after == BEING_DISCARDED)
        right = as_saved || zero;
    if (right)
        return;
    if (atomic_fetch_add(&wrong_pages, 1) < 10)
        fprintf(stderr, "vmm: page %zu is wrong (%s expected)\n", page, after == ZERO ? "zeros" : "saved bytes");
}

/* All threads wait while one of them reads. */
static void read_line(void)
{
    for (int c = getchar(); c != '\n' && c != EOF; c = getchar())
        continue;
}

/* Threads wait for each other by looking: it happens once. */
static void await(const _Atomic int *flag)
{
    while (!atomic_load(flag))
        usleep(100);
}

/*
 * A vCPU: its share of the pages first, in an order of its own, then all of them. A real VMM does not
 * let its guest touch memory that it is about to move, and nor does this one.
 */
static void *reader(void *argument)
{
    size_t self = (size_t)argument, pages = guest_bytes / page_size;
    uint64_t seed = 0x9e3779b97f4a7c15u * (self + 1);
    size_t mine = (pages + thread_count - 1 - self) / thread_count;
    size_t *order = malloc(mine * sizeof *order);
    for (size_t i = 0; i < mine; i++)
        order[i] = self + i * thread_count;
    for (size_t i = mine; i > 1; i--) {
        size_t j = next_random(&seed) % i, kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
    for (size_t i = 0; i < mine; i++) {
        if (i == first_pages)
            pthread_once(&line_was_read, read_line);
        if (!may_change(order[i]))
            check_page(order[i], 1);
    }
    await(&has_changed);
    for (size_t i = 0; i < mine; i++)
        if (may_change(order[i]) && order[i] < pages_mapped)
            check_page(order[i], 1);
    free(order);
    for (size_t i = 0; i < pages_mapped; i++)
        check_page((i + self * pages_mapped / thread_count) % pages_mapped, 0);
    return NULL;
}

/* Gives a page back: from then on it is zeros, unless a file has kept it. */
static void discard_page(size_t page)
{
    uint8_t was = AS_SAVED;
    /* One that is zero already is zero while it is discarded again. */
    atomic_compare_exchange_strong(&state[page], &was, BEING_DISCARDED);
    if (madvise(page_at(page), page_size, in_file && !discard_keeps ? MADV_REMOVE : MADV_DONTNEED) != 0)
        fail("madvise");
    if (!discard_keeps)
        atomic_store(&state[page], ZERO);
}

/* The balloon: gives ranges back while others read. */
static void *discarder(void *argument)
{
    (void)argument;
    uint64_t seed = 0xd1b54a32d192ed03u;
    size_t pages = guest_bytes / page_size;
    for (unsigned i = 0; i < discards && !atomic_load(&reading_is_over); i++) {
        size_t first = next_random(&seed) % pages;
        size_t most = pages / 8 + 1 < DISCARD_PAGES_MAX ? pages / 8 + 1 : DISCARD_PAGES_MAX;
        size_t count = 1 + next_random(&seed) % most;
        for (size_t page = first; page < first + count && page < pages; page++) {
            if (may_change(page))
                break;
            discard_page(page);
        }
        atomic_fetch_add(&discarded, 1);
        usleep(pace_us);
    }
    return NULL;
}

static void remap(struct region *region)
{
    /* The new place is found by mapping something there, and taken in its stead. */
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *place = mmap(NULL, region->length, PROT_NONE, flags, -1, 0);
    if (place == MAP_FAILED)
        fail("mmap");
    flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    region->memory = mremap(region->memory, region->length, region->length, flags, place);
    if (region->memory == MAP_FAILED)
        fail("mremap");
}

static void unmap_half(struct region *region)
{
    size_t kept = region->length / page_size / 2 * page_size;
    if (munmap(region->memory + kept, region->length - kept) != 0)
        fail("munmap");
    pages_mapped = (region->offset + kept) / page_size;
}

static void fork_child(void)
{
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0)
        _exit(0);
}

/* The page is there, and may not be written: whoever protects it has to answer, and that is nobody. */
static void protect_page(int userfault)
{
    uint8_t *page = page_at(0);
    uint8_t was = *(volatile uint8_t *)page;
    struct uffdio_writeprotect request = {
        .range = {.start = (uintptr_t)page, .len = page_size},
        .mode = UFFDIO_WRITEPROTECT_MODE_WP,
    };
    if (ioctl(userfault, UFFDIO_WRITEPROTECT, &request) != 0)
        fail("UFFDIO_WRITEPROTECT");
    *(volatile uint8_t *)page = was;
}

static void *changer(void *argument)
{
    while (atomic_load(&pages_read) < guest_bytes / page_size / 4)
        usleep(100);
    switch (change) {
    case REMAP: remap(&regions[region_count - 1]); break;
    case UNMAP: unmap_half(&regions[region_count - 1]); break;
    case FORK: fork_child(); break;
    case PROTECT: protect_page((int)(intptr_t)argument); break;
    default: break;
    }
    atomic_store(&has_changed, 1);
    return NULL;
}

static int open_userfaultfd(void)
{
    int fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int userfault = fd < 0 ? -1 : ioctl(fd, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        close(fd);
    if (userfault < 0)
        userfault = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (userfault < 0)
        fail("userfaultfd");
    /* Whoever fills the memory must hear what else becomes of it. */
    uint64_t features =
        UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP;
    if (change == FORK)
        features |= UFFD_FEATURE_EVENT_FORK;
    if (change == PROTECT)
        features |= UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    if (cached > 0)
        features |= page_size > SMALL_PAGE ? UFFD_FEATURE_MINOR_HUGETLBFS : UFFD_FEATURE_MINOR_SHMEM;
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    if (ioctl(userfault, UFFDIO_API, &api) != 0)
        fail("UFFDIO_API");
    return userfault;
}

static int open_memory_file(void)
{
    int fd = memfd_create("guest", MFD_CLOEXEC | (page_size > SMALL_PAGE ? MFD_HUGETLB : 0));
    if (fd < 0 || ftruncate(fd, (off_t)guest_bytes) != 0)
        fail("memfd_create");
    return fd;
}

/* Some pages are in the memory file already, put there by another mapping of it. */
static void fill_some(int fd)
{
    uint8_t *other = mmap(NULL, guest_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (other == MAP_FAILED)
        fail("mmap");
    for (size_t page = 0; cached > 0 && page < guest_bytes / page_size; page += cached)
        memcpy(other + page * page_size, expected + page * page_size, page_size);
    munmap(other, guest_bytes);
}

/* Maps the regions, each at an address of its own, and has their missing pages fault. */
static void map_regions(int userfault)
{
    size_t pages = guest_bytes / page_size;
    int huge = page_size > SMALL_PAGE ? MAP_HUGETLB : 0;
    int flags = in_file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | huge;
    int fd = in_file ? open_memory_file() : -1;
    uint64_t mode = UFFDIO_REGISTER_MODE_MISSING;
    if (cached > 0) {
        fill_some(fd);
        mode |= UFFDIO_REGISTER_MODE_MINOR;
    }
    if (change == PROTECT)
        mode |= UFFDIO_REGISTER_MODE_WP;
    pages_mapped = pages;
    for (unsigned i = 0; i < region_count; i++) {
        size_t first = pages * i / region_count, end = pages * (i + 1) / region_count;
        struct region *region = &regions[i];
        region->offset = first * page_size;
        region->length = (end - first) * page_size;
        off_t at = in_file ? (off_t)region->offset : 0;
        region->memory = mmap(NULL, region->length, PROT_READ | PROT_WRITE, flags, fd, at);
        if (region->memory == MAP_FAILED)
            fail("mmap");
        struct uffdio_register request = {
            .range = {.start = (uintptr_t)region->memory, .len = region->length},
            .mode = mode,
        };
        if (ioctl(userfault, UFFDIO_REGISTER, &request) != 0)
            fail("UFFDIO_REGISTER");
    }
}

static size_t write_message(char *text, size_t room)
{
    size_t at = (size_t)snprintf(text, room, "[");
    for (unsigned i = 0; i < region_count; i++) {
        const struct region *region = &regions[i];
        at += (size_t)snprintf(text + at, room - at, "%s{\"base_host_virt_addr\":%zu,\"size\":%zu,\"offset\":%zu",
                               i == 0 ? "" : ",", (size_t)(uintptr_t)region->memory, region->length, region->offset);
        /* The value of page_size_kib is in bytes, whatever it is called. */
        if (generation == 2 || generation == 3)
            at += (size_t)snprintf(text + at, room - at, ",\"page_size_kib\":%zu", page_size);
        if (generation >= 3)
            at += (size_t)snprintf(text + at, room - at, ",\"page_size\":%zu", page_size);
        at += (size_t)snprintf(text + at, room - at, "}");
    }
    return at + (size_t)snprintf(text + at, room - at, "]");
}

/* The first piece carries the descriptor. */
static void send_piece(int fd, const char *bytes, size_t length, int descriptor)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec piece = {.iov_base = (void *)bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (descriptor >= 0) {
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    }
    if (sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)length)
        fail("sendmsg");
}

/* The connection stays open, and says nothing more; so does the userfaultfd, or pages would be zeros. */
static void hand_over(int userfault)
{
    static char text[REGIONS_MAX * 200];
    size_t length = write_message(text, sizeof text);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        fail(socket_path);
    }
    strcpy(address.sun_path, socket_path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail(socket_path);
    for (size_t at = 0; at < length;) {
        size_t piece = length - at < piece_bytes ? length - at : piece_bytes;
        send_piece(fd, text + at, piece, at == 0 ? userfault : -1);
        at += piece;
    }
}

/* By then its threads wait for pages. */
static void *late_hand_over(void *argument)
{
    read_line();
    hand_over((int)(intptr_t)argument);
    return NULL;
}

static void map_expected(void)
{
    int fd = open(expect_path, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) != 0)
        fail(expect_path);
    guest_bytes = (size_t)facts.st_size;
    if (guest_bytes == 0 || guest_bytes % page_size != 0) {
        errno = EINVAL;
        fail(expect_path);
    }
    expected = mmap(NULL, guest_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (expected == MAP_FAILED)
        fail(expect_path);
    close(fd);
}

static void run_threads(int userfault)
{
    pthread_t readers[THREADS_MAX], balloon, other, door;
    if (early && pthread_create(&door, NULL, late_hand_over, (void *)(intptr_t)userfault) != 0)
        fail("pthread_create");
    if (pthread_create(&other, NULL, changer, (void *)(intptr_t)userfault) != 0)
        fail("pthread_create");
    if (discards > 0 && pthread_create(&balloon, NULL, discarder, NULL) != 0)
        fail("pthread_create");
    for (size_t i = 0; i < thread_count; i++) {
        if (pthread_create(&readers[i], NULL, reader, (void *)i) != 0)
            fail("pthread_create");
    }
    for (size_t i = 0; i < thread_count; i++)
        pthread_join(readers[i], NULL);
    pthread_join(other, NULL);
    if (early)
        pthread_join(door, NULL);
    atomic_store(&reading_is_over, 1);
    if (discards > 0)
        pthread_join(balloon, NULL);
    /* What was discarded last nobody may have read since. */
    for (size_t page = 0; page < pages_mapped; page++)
        check_page(page, 0);
}

static void report(void)
{
    printf("{\"pages\":%zu,\"pagesRead\":%llu,\"wrongPages\":%llu,\"discarded\":%llu,\"firstTouches\":[",
           pages_mapped, (unsigned long long)pages_read, (unsigned long long)wrong_pages,
           (unsigned long long)discarded);
    for (unsigned i = 0; i < BUCKETS; i++)
        printf("%s%llu", i == 0 ? "" : ",", (unsigned long long)first_touches[i]);
    printf("]}\n");
    fflush(stdout);
}

static unsigned long number(const char *text, unsigned long most)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || value > most) {
        fprintf(stderr, "vmm: %s is no number up to %lu\n", text, most);
        exit(2);
    }
    return value;
}

static enum change change_named(const char *name)
{
    for (unsigned i = 0; i < sizeof change_names / sizeof *change_names; i++)
        if (strcmp(name, change_names[i]) == 0)
            return (enum change)i;
    fprintf(stderr, "vmm: %s is no change\n", name);
    exit(2);
}

static void parse(int count, char **words)
{
    static const struct option options[] = {
        {"expect", required_argument, NULL, 'e'},     {"regions", required_argument, NULL, 'r'},
        {"page-size", required_argument, NULL, 'p'},  {"threads", required_argument, NULL, 't'},
        {"discard", required_argument, NULL, 'd'},    {"generation", required_argument, NULL, 'g'},
        {"pieces", required_argument, NULL, 'i'},     {"hold", no_argument, NULL, 'h'},
        {"first", required_argument, NULL, 'f'},      {"early", no_argument, NULL, 'b'},
        {"memfd", no_argument, NULL, 'm'},            {"cached", required_argument, NULL, 'c'},
        {"change", required_argument, NULL, 'w'},     {"pace", required_argument, NULL, 'a'},
        {"wait", no_argument, NULL, 'l'},             {"dontneed", no_argument, NULL, 'n'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(count, words, "", options, NULL)) != -1;) {
        switch (option) {
        case 'e': expect_path = optarg; break;
        case 'r': region_count = (unsigned)number(optarg, REGIONS_MAX); break;
        case 'p': page_size = number(optarg, 1u << 30); break;
        case 't': thread_count = (unsigned)number(optarg, THREADS_MAX); break;
        case 'd': discards = (unsigned)number(optarg, 1000000000); break;
        case 'g': generation = (unsigned)number(optarg, 4); break;
        case 'i': piece_bytes = number(optarg, SIZE_MAX); break;
        case 'h': hold = 1; break;
        case 'f': first_pages = number(optarg, SIZE_MAX); break;
        case 'm': in_file = 1; break;
        case 'c': cached = (unsigned)number(optarg, UINT32_MAX); break;
        case 'w': change = change_named(optarg); break;
        case 'a': pace_us = (unsigned)number(optarg, UINT32_MAX); break;
        case 'l': wait_first = 1; break;
        case 'b': early = 1; break;
        case 'n': discard_keeps = 1; break;
        default: exit(2);
        }
    }
    int wrong = expect_path == NULL || region_count == 0 || thread_count == 0 || ((cached > 0 || discard_keeps) && !in_file);
    /* What is about to change is not read before, so something else has to be. */
    wrong |= (change == REMAP || change == UNMAP) && region_count < 2;
    if (optind + 1 != count || wrong) {
        fprintf(stderr, "usage: vmm SOCKET --expect FILE [options]; see the head of vmm.c\n");
        exit(2);
    }
    socket_path = words[optind];
}

int main(int count, char **words)
{
    parse(count, words);
    map_expected();
    state = calloc(guest_bytes / page_size, 1);
    if (state == NULL)
        fail("calloc");
    int userfault = open_userfaultfd();
    map_regions(userfault);
    if (!early)
        hand_over(userfault);
    if (wait_first)
        read_line();
    run_threads(userfault);
    report();
    if (hold)
        read_line();
    return wrong_pages == 0 ? 0 : 1;
}
