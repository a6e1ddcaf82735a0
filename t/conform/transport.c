/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for transports: those of the unit tests (t/unit/transport_cases.c) over
 * the module under test, on the real loop and, unless the module declines it,
 * in the simulator; and what its info claims. */
#include "conform/transport_run.h"

#define KNOWN_FLAGS (PD_TRANSPORT_WRITE | PD_TRANSPORT_READ | PD_TRANSPORT_SAME_HOST | PD_TRANSPORT_NEEDS_FD)

static void info_case(struct tr_env *e)
{
    struct pd_transport_info info, again;
    struct tr_node n;

    memset(&info, 0, sizeof(info));
    info.size = sizeof(info);
    again = info;
    tr_node_open(e, &n, e->la, 0xa1, 1, 1 << 20, e->conf);
    e->ops->info(n.tp, &info);
    e->ops->info(n.tp, &again);
    CF_NEED(memcmp(&info, &again, sizeof(info)) == 0, "info changes from call to call");
    CF_NEED((info.flags & ~KNOWN_FLAGS) == 0, "flags 0x%x are not known", info.flags);
    CF_NEED((info.flags & (PD_TRANSPORT_WRITE | PD_TRANSPORT_READ)) != 0, "neither WRITE nor READ is claimed");
    CF_NEED(info.max_segments >= 1024, "max_segments is %u, expected at least 1024", info.max_segments);
    CF_NEED(info.failure_ms > 0 && info.failure_ms <= 600000, "failure_ms is %u", info.failure_ms);
    CF_NEED(info.max_bytes >= 1 << 20, "max_bytes is %llu, expected at least 1 MiB",
            (unsigned long long)info.max_bytes);
    tr_node_close(e, &n);
}

static void run_info(const struct cf_unit *u)
{
    cf_on_real_loop(u, info_case);
}

/* Any byte of a blob may be forged: nothing outside the window changes. */
static void forged_case(struct tr_env *e)
{
    struct pd_segment in = { 4096, 1000 }, src = { 0, 1000 };
    struct tr_node a, b;
    struct tr_window w;
    struct tr_link l;

    tr_node_open(e, &a, e->la, 0xa1, 11, 1 << 16, e->conf);
    tr_node_open(e, &b, e->lb, 0xb2, 22, 1 << 16, e->conf);
    tr_fill(b.base, b.bytes, 5);
    tr_window_open(&w, &a, &b.ctx.node, 3, PD_TRANSPORT_WRITE, &in, 1);
    tr_connect_up(e, &l, &b, &a);
    for (size_t at = 0; at < w.blob_len; at++) {
        struct pd_transport_target *t = NULL;
        struct tr_window bad = w;
        struct tr_post post;
        bad.blob[at] ^= (uint8_t)(1u << at % 8);
        memset(a.base, 0x5a, a.bytes);
        if (e->ops->target_open(l.peer, bad.blob, bad.blob_len, &t) != PD_OK)
            continue;
        if (tr_post(&b, t, &post, 0, &src, 1) == PD_OK)
            tr_wait_post(e, &post);
        for (uint64_t i = 0; i < a.bytes; i++)
            CF_NEED(a.base[i] == 0x5a || (i >= in.offset && i < in.offset + in.bytes),
                    "with byte %zu of the blob forged, byte %llu outside the window was written", at,
                    (unsigned long long)i);
        e->ops->target_close(t);
        if (l.downs > 0)
            tr_connect_up(e, &l, &b, &a);
    }
    tr_window_close(e, &w);
    tr_disconnect(e, &l, PD_DISCONNECT_DRAIN);
    tr_node_close(e, &b);
    tr_node_close(e, &a);
}

static void run_forged(const struct cf_unit *u)
{
    cf_on_real_loop(u, forged_case);
}

#define X(name)                                                                \
    static void run_##name(const struct cf_unit *u)                            \
    {                                                                          \
        cf_on_real_loop(u, tr_case_##name);                                       \
    }
TRANSPORT_CASES(X)
TRANSPORT_KILL_CASES(X)
#undef X
#define X(name)                                                                \
    static void sim_##name(const struct cf_unit *u)                            \
    {                                                                          \
        cf_in_simulator(u, tr_case_##name);                                       \
    }
TRANSPORT_CASES(X)
#undef X

#define BOTH(name, what) { #name, what, run_##name }, { "sim_" #name, what " (simulator)", sim_##name }

const struct cf_case cf_transport_cases[] = {
    { "info", "what it claims of itself is legal and constant", run_info },
    { "forged", "a forged blob writes nothing outside its window", run_forged },
    BOTH(sizes, "1 byte to 16 MiB, nothing beside the window"),
    BOTH(segments, "1 to 5000 segments on both sides"),
    BOTH(permutation, "segments in any order"),
    BOTH(many, "500 posts behind a large one"),
    BOTH(again, "a full queue says so and tells when it has room"),
    BOTH(refused, "a post to a window that was closed, then a good one"),
    BOTH(bounds, "posts outside window, memory or sense are refused"),
    BOTH(cancel, "canceled before, during and after: one answer, then no byte"),
    BOTH(cancel_fenced, "a fence ends everything for good"),
    BOTH(close_while_writing, "after on_closed of a window no byte lands"),
    BOTH(twice, "bytes that come twice count once"),
    BOTH(disconnects, "draining, and before it is up"),
    BOTH(stale, "handles of an earlier life or lease are refused"),
    BOTH(wrong_identity, "another node or epoch is refused"),
    BOTH(busy, "memory in use stays"),
    BOTH(reconnects, "many connections leave no descriptor"),
    BOTH(fuzz, "damaged blobs and addresses"),
    BOTH(read, "READ, when it is claimed"),
    BOTH(read_stop, "READ that is canceled or closed"),
    BOTH(memory_churn, "memories come and go"),
    { "kill_owner", "the owner's process dies or stops", run_kill_owner },
    { "kill_poster", "the poster's process dies", run_kill_poster },
    { "restart", "an owner that comes back is somebody else", run_restart },
    { NULL, NULL, NULL },
};
