/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs that measure an engine's speed share.  Each prints "ready",
 * then reads commands and answers each with the seconds it took and the seconds
 * of processor time of all its threads meanwhile:
 *   prefill N      a prompt of N tokens, to its first token
 *   decode P N     N tokens after a prompt of P and the first token */
#ifndef SPEED_H
#define SPEED_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static inline double speed_clock(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct speed_time {
    double wall, cpu;
};

static inline struct speed_time speed_now(void)
{
    return (struct speed_time){ speed_clock(CLOCK_MONOTONIC), speed_clock(CLOCK_PROCESS_CPUTIME_ID) };
}

/* Any tokens but special ones. */
static inline void speed_tokens(int32_t *tokens, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(300 + i * 7919u % 900);
}

/* prefill and decode set when they began and ended; false when they failed. */
static inline int speed_serve(bool (*prefill)(uint32_t n, struct speed_time *from, struct speed_time *to),
                              bool (*decode)(uint32_t prompt, uint32_t n, struct speed_time *from,
                                             struct speed_time *to))
{
    struct speed_time from, to;
    char line[128];
    unsigned p, n;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        bool is_good = false;
        if (sscanf(line, "prefill %u", &n) == 1 && n > 0)
            is_good = prefill(n, &from, &to);
        else if (sscanf(line, "decode %u %u", &p, &n) == 2 && p > 0 && n > 0)
            is_good = decode(p, n, &from, &to);
        if (!is_good)
            return 1;
        printf("%.9f %.9f\n", to.wall - from.wall, to.cpu - from.cpu);
        fflush(stdout);
    }
    return 0;
}

#endif
