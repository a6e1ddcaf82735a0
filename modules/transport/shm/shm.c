/* SPDX-License-Identifier: Apache-2.0 */
/* Transport through shared memory.  The module proper: its options, its socket,
 * its ops table; the work is done in ../common. */
#include "shm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One frame is copied in one go, so this bounds a turn of the loop. */
#define FRAME_BYTES (1u << 20)
/* Generations of one instance that may be there at a time. */
#define SLOTS 8u

static void nothing(struct pd_watch *w, uint32_t events, void *arg)
{
    (void)w;
    (void)events;
    (void)arg;
}

/* The simulator has no descriptors to pass. */
static pd_status has_descriptors(struct pd_loop *loop)
{
    struct pd_watch *w;
    pd_status st;
    int fds[2];

    if (pipe(fds) != 0)
        return PD_ELIMIT;
    st = pd_watch_open(loop, fds[0], PD_WATCH_READ, "shm probe", nothing, NULL, &w);
    if (st == PD_OK)
        pd_watch_close(loop, w);
    close(fds[0]);
    close(fds[1]);
    return st == PD_ENOSYS ? PD_ENOSYS : PD_OK;
}

/* The same few names for every life of this instance: a new life replaces the
 * socket of one that was killed, and two generations can be there at a time. */
static pd_status socket_path(const struct pd_instance_ctx *ctx, const struct pd_shm_conf *conf,
                             uint32_t slot, struct pd_addr *out)
{
    const uint8_t *u = ctx->node.uuid.b;
    const char *dir = conf->directory;
    uint32_t hash = 2166136261u;
    int n;

    if (dir == NULL)
        dir = getenv("XDG_RUNTIME_DIR");
    if (dir == NULL || dir[0] != '/')
        dir = "/tmp";
    for (const char *p = ctx->name == NULL ? "" : ctx->name; *p != '\0'; p++)
        hash = (hash ^ (uint8_t)*p) * 16777619u;
    memset(out, 0, sizeof(*out));
    out->family = PD_AF_UNIX;
    n = snprintf(out->path, sizeof(out->path),
                 "%s/pdplane-%02x%02x%02x%02x%02x%02x%02x%02x"
                 "%02x%02x%02x%02x%02x%02x%02x%02x-%08x-%u",
                 dir, u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11],
                 u[12], u[13], u[14], u[15], hash, slot);
    return n > 0 && (size_t)n < sizeof(out->path) ? PD_OK : PD_EINVAL;
}

static pd_status shm_create(const struct pd_instance_ctx *ctx, const void *conf_arg,
                            struct pd_transport **out, struct pd_err *err)
{
    const struct pd_shm_conf *conf = conf_arg;
    struct pd_xp_conf c;
    pd_status st = has_descriptors(ctx->loop);

    if (st != PD_OK) {
        pd_xp_fail(err, st, st == PD_ENOSYS ? "shared memory cannot be simulated; use tcp"
                                            : "no descriptors left");
        return st;
    }
    memset(&c, 0, sizeof(c));
    c.kind = PD_XP_SHM;
    c.lanes = 1;
    c.queue = conf->queue;
    c.frame_bytes = FRAME_BYTES;
    c.max_windows = conf->windows;
    c.max_links = conf->connections;
    c.timeout = conf->timeout;
    c.connect_timeout = conf->timeout;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        st = socket_path(ctx, conf, slot, &c.listen);
        if (st != PD_OK) {
            pd_xp_fail(err, st, "the name of the directory is too long for a socket");
            return st;
        }
        st = pd_xp_create(ctx, &c, out, err);
        if (st != PD_EBUSY)
            break;
    }
    if (st != PD_OK && err != NULL && c.listen.path[0] != '\0')
        snprintf(err->hint, sizeof(err->hint),
                 "make room there, name another folder with transport.shm.directory, or load tcp "
                 "and not shm");
    return st;
}

static pd_status shm_check(const void *conf_arg, struct pd_err *err)
{
    const struct pd_shm_conf *conf = conf_arg;
    struct stat sb;

    if (conf->directory == NULL)
        return PD_OK;
    if (conf->directory[0] != '/' || stat(conf->directory, &sb) != 0 || !S_ISDIR(sb.st_mode)) {
        pd_xp_fail(err, PD_ENOENT, "there is no directory \"%s\"", conf->directory);
        return PD_ENOENT;
    }
    return PD_OK;
}

static const struct pd_option shm_options[] = {
    PD_OPT_STRING("directory", struct pd_shm_conf, directory, NULL, .flags = PD_OPT_PATH,
                  .help = "Where the socket for the nodes of this host is made; at most 48 bytes. "
                          "Without it $XDG_RUNTIME_DIR or /tmp. Only processes of the same user "
                          "are accepted."),
    PD_OPT_INT("queue", struct pd_shm_conf, queue, "1024", .min = 1, .max = 65536,
               .unit = "transfers",
               .help = "Transfers to one node that may be under way at a time. More have to wait "
                       "outside."),
    PD_OPT_INT("windows", struct pd_shm_conf, windows, "4096", .min = 1, .max = 65536,
               .unit = "windows", .help = "Windows on own memory that may be open at a time."),
    PD_OPT_INT("connections", struct pd_shm_conf, connections, "256", .min = 1, .max = 4096,
               .unit = "connections", .help = "Connections that are accepted at a time."),
    PD_OPT_DURATION("timeout", struct pd_shm_conf, timeout, "2s", .min = 100 * (int64_t)PD_MS,
                    .max = 300 * (int64_t)PD_SEC,
                    .help = "A node that makes no progress for so long while something is under "
                            "way is given up. One that dies is noticed at once."),
    PD_OPT_END
};

static const struct pd_transport_ops shm_ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = shm_create,
    PD_XP_OPS,
};

static const struct pd_unit shm_units[] = {
    PD_UNIT(.kind = PD_KIND_TRANSPORT, .name = "shm", .ops = &shm_ops.head,
            .options = shm_options, .conf_size = sizeof(struct pd_shm_conf),
            .summary = "Moves KV between nodes of one host by one copy out of shared memory.",
            .check = shm_check),
    PD_UNIT_END
};

PD_MODULE(.name = "shm", .version = "1.0", .summary = "Transport through shared memory.",
          .units = shm_units)
