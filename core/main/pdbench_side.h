/* SPDX-License-Identifier: Apache-2.0 */
/* One side of a measurement of a transport: a process with one instance of the
 * module, memory, and pipes to the other side. */
#ifndef PD_MAIN_PDBENCH_SIDE_H
#define PD_MAIN_PDBENCH_SIDE_H

#include <pdplane/loop.h>
#include <pdplane/transport.h>

#include "main/pdbench_module.h"

#define PDBENCH_POST_MAX 1024u      /* segments of a post that every transport takes */

enum {
    PDBENCH_MSG_READY = 1,          /* owner: it is up; address, node, listener, pid and base of its memory */
    PDBENCH_MSG_CASE,               /* source: open a window of such segments */
    PDBENCH_MSG_WINDOW,             /* owner: its blob */
    PDBENCH_MSG_CLOSE,              /* source */
    PDBENCH_MSG_CLOSED,             /* owner: what landed */
    PDBENCH_MSG_CPU,                /* source asks, owner answers: processor time so far */
    PDBENCH_MSG_STREAMED            /* owner: so many bytes have come through the plain stream */
};

/* Smaller than a pipe's buffer, so it goes in one piece. */
struct pdbench_msg {
    uint32_t type;
    uint32_t access;
    uint64_t segment;               /* bytes */
    uint64_t seed;                  /* of the order of segments; 0: as they lie */
    uint64_t bytes;
    uint64_t base;
    uint64_t cpu;                   /* ns */
    int64_t pid;
    struct pd_node_id node;
    uint16_t port;
    uint16_t reserved;
    uint32_t address_len, blob_len;
    uint8_t address[512], blob[2048];
};

struct pdbench_side {
    struct pdbench_module module;
    uint64_t bytes;                 /* of memory */
    int in, out;                    /* pipes */
    /* What open makes. */
    struct pd_loop *loop;           /* the module's */
    struct pd_host_memory memory;
    const struct pd_transport_ops *ops;
    struct pd_transport *tp;
    struct pd_transport_memory *registered;
    struct pd_transport_info info;
    struct pd_node_id node;
    struct pd_watch *watch;
    void (*on_msg)(const struct pdbench_msg *msg, void *arg);   /* NULL: the other side is gone */
    void *arg;
    bool is_closed;
};

/* Loads the module and makes an instance with memory; false after a message. */
bool pdbench_side_open(struct pdbench_side *s, const char *name);
void pdbench_side_close(struct pdbench_side *s);
/* False when the other side is gone. */
bool pdbench_side_send(struct pdbench_side *s, const struct pdbench_msg *msg);
/* Segments of this many bytes that cover the memory, in the order of a seed.
 * Gives an array of *n; NULL: no memory. */
struct pd_segment *pdbench_segments(uint64_t bytes, uint64_t segment, uint64_t seed, uint32_t *n);

/* The owner's whole life; the exit status. */
int pdbench_owner(struct pdbench_side *s);

#endif
