/* Two processes and the connection between them: how long a move takes, and what it costs both. */
#define _GNU_SOURCE
#include "limit.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void be_receiver(const struct move *move, const struct end *receiver, int fd)
{
    receiver->prepare(move);
    uint8_t ready = 1;
    write_all(fd, &ready, sizeof(ready));
    /* The sender may take longer to be: what is done now is done within its time. */
    read_all(fd, &ready, sizeof(ready));
    double before = cpu_seconds();
    receiver->run(move, fd);
    double used = cpu_seconds() - before;
    write_all(fd, &used, sizeof(used));
    _exit(0);
}

void run_move(const struct move *move, const struct end *sender, const struct end *receiver)
{
    int ends[2];
    connect_pair(ends);
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        close(ends[0]);
        be_receiver(move, receiver, ends[1]);
    }
    close(ends[1]);
    sender->prepare(move);
    uint8_t ready;
    read_all(ends[0], &ready, sizeof(ready));

    double began = monotonic_seconds();
    double before = cpu_seconds();
    write_all(ends[0], &ready, sizeof(ready));
    sender->run(move, ends[0]);
    double used = cpu_seconds() - before;
    double theirs;
    read_all(ends[0], &theirs, sizeof(theirs));
    double seconds = monotonic_seconds() - began;
    waitpid(child, NULL, 0);

    printf("{\"bytes\": %zu, \"seconds\": %.6f, \"cpuSeconds\": %.6f}\n",
           move->bytes / PAGE_BYTES * (HEADER_BYTES + PAGE_BYTES), seconds, used + theirs);
}
