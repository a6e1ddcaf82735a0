/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench transport: the side that measures. */
#ifndef PD_MAIN_PDBENCH_SOURCE_H
#define PD_MAIN_PDBENCH_SOURCE_H

#include "main/pdbench_side.h"

enum { PDBENCH_SIZES = 16 };
enum { PDBENCH_MODULE, PDBENCH_MEMCPY, PDBENCH_READV, PDBENCH_STREAM, PDBENCH_WAYS };

struct pdbench_result {
    uint64_t segment;
    bool is_scattered;
    double seconds[PDBENCH_WAYS];           /* median; 0: not possible */
    double cpu_here, cpu_there;     /* of the module, seconds a round */
    double cpu_copy;                /* of memcpy */
};

struct pdbench_source {
    struct pdbench_side side;
    struct pdbench_msg got;         /* the last message */
    bool has_got, is_lost;
    struct pdbench_msg ready;
    uint64_t sizes[PDBENCH_SIZES];
    uint32_t n_sizes;
    uint64_t rounds;
    bool is_json;
    bool is_up, is_down;
    pd_status up_status;
    uint32_t in_flight;
    bool has_failed, may_post;
    struct pd_transport_peer *peer;
    struct pd_stream *stream;
    bool is_writable, is_connected, is_stream_closed;
    uint8_t *copy;                  /* where floors copy to */
};

/* Says what is wrong; false. */
bool pdbench_source_fail(const struct pdbench_source *s, const char *what);
/* Runs the loop until a flag is set, 30 s at most; false after a message. */
bool pdbench_source_wait(struct pdbench_source *s, const bool *flag);

/* What the machine itself does with n segments; false: it cannot. */
void pdbench_floor_copy(struct pdbench_source *s, const struct pd_segment *from, const struct pd_segment *to, uint32_t n);
bool pdbench_floor_readv(struct pdbench_source *s, const struct pd_segment *from, const struct pd_segment *to, uint32_t n);
bool pdbench_floor_stream(struct pdbench_source *s);

void pdbench_source_table(struct pdbench_source *s, const struct pdbench_result *r, uint32_t n);
bool pdbench_source_json(struct pdbench_source *s, const struct pdbench_result *r, uint32_t n);

#endif
