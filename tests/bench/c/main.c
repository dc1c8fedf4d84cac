/*
 *     limit bulk MIB
 *     limit faults MIB TOUCHES spinning|parked
 */
#include "limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **words)
{
    size_t bytes = count > 2 ? strtoul(words[2], NULL, 10) << 20 : 0;
    if (count == 3 && strcmp(words[1], "bulk") == 0 && bytes > 0) {
        run_bulk(bytes);
        return 0;
    }
    if (count == 5 && strcmp(words[1], "faults") == 0) {
        size_t touches = strtoul(words[3], NULL, 10);
        if (touches > 0 && touches <= bytes / PAGE_BYTES) {
            run_faults(bytes, touches, strcmp(words[4], "spinning") == 0);
            return 0;
        }
    }
    fprintf(stderr, "limit bulk MIB, or limit faults MIB TOUCHES spinning|parked\n");
    return 2;
}
