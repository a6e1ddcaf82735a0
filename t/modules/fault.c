/* SPDX-License-Identifier: Apache-2.0 */
/* tcp_fault: the tcp transport with faults on purpose, for tests of what lies
 * above a transport.  It is never installed.
 *
 * On the owner's side, after a frame was stored and its checksum was found
 * right: flip_every and truncate_every change it where only end-to-end digests
 * can notice; drop_every gives no answer, so the poster's patience ends the
 * link.  On the poster's side: delay holds posts back, duplicate_every sends
 * frames twice.  0 switches a fault off.
 *
 * With `probe` (see probe.h) the process stops at "kv post", before the first
 * byte of a transfer is posted, or at "kv stored N", when the frame with the
 * Nth byte of a window was stored and is not yet confirmed. */
#include "tcp.h"

#include <stdlib.h>
#include <string.h>

#include "probe.h"

struct fault_conf {
    struct pd_tcp_conf tcp;
    uint32_t flip_every;
    uint32_t truncate_every;
    uint32_t drop_every;
    uint32_t duplicate_every;
    uint64_t delay;
    uint64_t seed;
    const char *probe;
};

struct fault {
    struct pd_xp_hooks hooks;
    struct fault_conf conf;
    uint64_t stored, sent;
    uint64_t rng;
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

static uint64_t next_random(struct fault *f)
{
    uint64_t z = f->rng += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static bool is_turn(uint64_t count, uint32_t every)
{
    return every != 0 && count % every == 0;
}

static void probe_stored(const char *dir, uint64_t from, uint64_t to)
{
    char path[256], armed[64];
    unsigned long long at;

    if (dir == NULL || !probe_armed(dir, path, sizeof(path), armed, sizeof(armed)))
        return;
    if (sscanf(armed, "kv stored %llu", &at) == 1 && at > from && at <= to)
        probe_wait(dir, path, armed, "");
}

static void probe_post(const char *dir)
{
    char path[256], armed[64];

    if (dir != NULL && probe_armed(dir, path, sizeof(path), armed, sizeof(armed)) &&
        strcmp(armed, "kv post") == 0)
        probe_wait(dir, path, armed, "");
}

static bool fault_stored(void *arg, struct pd_transport_window *window, uint64_t offset,
                         uint32_t len, uint32_t *count)
{
    struct fault *f = arg;

    f->stored++;
    probe_stored(f->conf.probe, offset, offset + len);
    if (is_turn(f->stored, f->conf.flip_every)) {
        uint8_t *p = pd_xp_window_at(window, offset + next_random(f) % len);
        *p ^= (uint8_t)(1u << next_random(f) % 8);
    }
    if (is_turn(f->stored, f->conf.truncate_every)) {
        *count = len / 2;
        for (uint64_t i = len / 2; i < len; i++)
            *pd_xp_window_at(window, offset + i) = 0;
    }
    return !is_turn(f->stored, f->conf.drop_every);
}

static uint32_t fault_copies(void *arg)
{
    struct fault *f = arg;

    return is_turn(++f->sent, f->conf.duplicate_every) ? 1 : 0;
}

static pd_time fault_delay(void *arg)
{
    struct fault *f = arg;

    probe_post(f->conf.probe);
    return f->conf.delay == 0 ? 0 : next_random(f) % (2 * f->conf.delay);
}

static pd_status fault_create(const struct pd_instance_ctx *ctx, const void *conf,
                              struct pd_transport **out, struct pd_err *err)
{
    struct fault *f = calloc(1, sizeof(*f));
    pd_status st;

    if (f == NULL)
        return PD_ENOMEM;
    f->conf = *(const struct fault_conf *)conf;
    f->rng = f->conf.seed;
    f->hooks.arg = f;
    f->hooks.stored = fault_stored;
    f->hooks.copies = fault_copies;
    f->hooks.delay = fault_delay;
    st = pd_tcp_create(ctx, &f->conf.tcp, &f->hooks, out, err);
    if (st != PD_OK)
        free(f);
    return st;
}

static void fault_closed(void *arg)
{
    struct fault *f = arg;
    void (*on_closed)(void *) = f->on_closed;
    void *closed_arg = f->on_closed_arg;

    free(f);
    if (on_closed != NULL)
        on_closed(closed_arg);
}

static void fault_destroy(struct pd_transport *tp, void (*on_closed)(void *arg), void *arg)
{
    struct fault *f = tp->conf.hooks->arg;

    f->on_closed = on_closed;
    f->on_closed_arg = arg;
    pd_xp_destroy(tp, fault_closed, f);
}

static const struct pd_option fault_options[] = {
    PD_TCP_ROWS(struct fault_conf, tcp.),
    PD_OPT_INT("flip_every", struct fault_conf, flip_every, "0", .max = 1 << 30, .unit = "frames",
               .help = "Change one bit of every so many frames after their checksum."),
    PD_OPT_INT("truncate_every", struct fault_conf, truncate_every, "0", .max = 1 << 30,
               .unit = "frames", .help = "Lose the second half of every so many frames."),
    PD_OPT_INT("drop_every", struct fault_conf, drop_every, "0", .max = 1 << 30, .unit = "frames",
               .help = "Leave every so many frames without answer."),
    PD_OPT_INT("duplicate_every", struct fault_conf, duplicate_every, "0", .max = 1 << 30,
               .unit = "frames", .help = "Send every so many frames twice."),
    PD_OPT_DURATION("delay", struct fault_conf, delay, "0s", .max = 600 * (int64_t)PD_SEC,
                    .help = "Hold each post back for so long on average."),
    PD_OPT_INT("seed", struct fault_conf, seed, "1",
               .help = "Where in a frame, and how long a delay."),
    PD_OPT_STRING("probe", struct fault_conf, probe, NULL, .flags = PD_OPT_NONEMPTY,
                  .help = "Folder with the test's file and socket."),
    PD_OPT_END
};

static const struct pd_transport_ops fault_ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = fault_create,
    .destroy = fault_destroy,
    .info = pd_xp_info,
    .stats = pd_xp_stats,
    .address = pd_xp_address,
    .memory_add = pd_xp_memory_add,
    .memory_remove = pd_xp_memory_remove,
    .window_open = pd_xp_window_open,
    .window_export = pd_xp_window_export,
    .window_close = pd_xp_window_close,
    .connect = pd_xp_connect,
    .disconnect = pd_xp_disconnect,
    .target_open = pd_xp_target_open,
    .target_close = pd_xp_target_close,
    .post = pd_xp_post,
    .cancel = pd_xp_cancel,
};

static const struct pd_unit fault_units[] = {
    PD_UNIT(.kind = PD_KIND_TRANSPORT, .name = "tcp_fault", .ops = &fault_ops.head,
            .options = fault_options, .conf_size = sizeof(struct fault_conf),
            .summary = "tcp with faults on purpose, for tests.", .check = pd_tcp_check, .check_site = pd_tcp_check_site),
    PD_UNIT_END
};

PD_MODULE(.name = "tcp_fault", .version = "1.0", .summary = "tcp with faults, for tests.",
          .units = fault_units)
