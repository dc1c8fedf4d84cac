/*
 *     limit bulk MIB
 *     limit capture MIB FILE
 *     limit restore MIB FILE
 *     limit faults MIB TOUCHES spinning|parked
 *     limit pushed-faults MIB small|huge MB
 */
#include "limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HUGE_BYTES ((size_t)2 << 20)

static int usage(void)
{
    fprintf(stderr, "limit bulk MIB, limit capture|restore MIB FILE, "
                    "limit faults MIB TOUCHES spinning|parked, or "
                    "limit pushed-faults MIB small|huge MB\n");
    return 2;
}

int main(int count, char **words)
{
    size_t bytes = count > 2 ? strtoul(words[2], NULL, 10) << 20 : 0;
    if (bytes == 0)
        return usage();
    const char *what = words[1];
    if (count == 3 && strcmp(what, "bulk") == 0)
        run_bulk(bytes);
    else if (count == 4 && strcmp(what, "capture") == 0)
        run_capture(bytes, words[3]);
    else if (count == 4 && strcmp(what, "restore") == 0)
        run_restore(bytes, words[3]);
    else if (count == 5 && strcmp(what, "faults") == 0)
        run_faults(bytes, strtoul(words[3], NULL, 10), strcmp(words[4], "spinning") == 0);
    else if (count == 5 && strcmp(what, "pushed-faults") == 0)
        run_pushed_faults(bytes, strcmp(words[3], "huge") == 0 ? HUGE_BYTES : PAGE_BYTES,
                          strtod(words[4], NULL) * 1e6);
    else
        return usage();
    return 0;
}
