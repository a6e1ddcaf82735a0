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
    return st == PD_ENOSYS ? PD_EDECLINED : PD_OK;
}

/* Folder i in the order of trying, NULL behind the last. */
static const char *folder(const struct pd_shm_conf *conf, uint32_t i)
{
    const char *own = getenv("XDG_RUNTIME_DIR");
    bool has_own = own != NULL && own[0] == '/' && strlen(own) <= PD_SHM_FOLDER_MAX;

    if (conf->directory != NULL)
        return i == 0 ? conf->directory : NULL;
    if (has_own && i == 0)
        return own;
    return i == (uint32_t)has_own ? "/tmp" : NULL;
}

static pd_status listen_in(const struct pd_instance_ctx *ctx, const char *dir, struct pd_xp_conf *c,
                           struct pd_transport **out, struct pd_err *err)
{
    pd_status st;

    pd_shm_sweep(ctx->loop, ctx->log, dir);
    pd_shm_name(ctx->loop, dir, &c->listen);
    st = pd_xp_create(ctx, c, out, err);
    if (st != PD_EPERM && st != PD_ENOENT && st != PD_ELIMIT && st != PD_EIO)
        return st;
    if (err != NULL)
        snprintf(err->hint, sizeof(err->hint),
                 "make \"%s\" a folder with room that the user of the node may write to, name another "
                 "with transport.shm.directory, or load tcp and not shm", dir);
    return PD_EDECLINED;
}

static pd_status shm_create(const struct pd_instance_ctx *ctx, const void *conf_arg,
                            struct pd_transport **out, struct pd_err *err)
{
    const struct pd_shm_conf *conf = conf_arg;
    struct pd_xp_conf c;
    const char *dir;
    pd_status st = has_descriptors(ctx->loop);

    if (st != PD_OK) {
        pd_xp_fail(err, st, st == PD_EDECLINED ? "shared memory cannot be simulated; use tcp"
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
    st = PD_EDECLINED;
    for (uint32_t i = 0; st == PD_EDECLINED && (dir = folder(conf, i)) != NULL; i++)
        st = listen_in(ctx, dir, &c, out, err);
    return st;
}

static pd_status shm_check(const void *conf_arg, struct pd_err *err)
{
    const struct pd_shm_conf *conf = conf_arg;
    const char *dir = conf->directory;

    if (dir == NULL || strlen(dir) <= PD_SHM_FOLDER_MAX)
        return PD_OK;
    pd_xp_fail(err, PD_EINVAL, "directory has more than %u bytes, too many for a socket's path: \"%s\"",
               PD_SHM_FOLDER_MAX, dir);
    if (err != NULL)
        snprintf(err->hint, sizeof(err->hint), "name a folder such as \"/run/pdplane\"");
    return PD_EINVAL;
}

/* Who checks may be another user than who starts, so only what both see. */
static pd_status shm_check_site(const void *conf_arg, const struct pd_unit_site *site,
                                struct pd_err *err)
{
    const struct pd_shm_conf *conf = conf_arg;
    struct stat sb;

    (void)site;
    if (conf->directory == NULL || (stat(conf->directory, &sb) == 0 && S_ISDIR(sb.st_mode)))
        return PD_OK;
    pd_xp_fail(err, PD_EDECLINED, "there is no directory \"%s\"", conf->directory);
    if (err != NULL)
        snprintf(err->hint, sizeof(err->hint), "make it, or name another with transport.shm.directory");
    return PD_EDECLINED;
}

static const struct pd_option shm_options[] = {
    PD_OPT_STRING("directory", struct pd_shm_conf, directory, NULL, .flags = PD_OPT_PATH,
                  .help = "Where the socket for the nodes of this host is made; at most 60 bytes. "
                          "Without it $XDG_RUNTIME_DIR, or /tmp when that cannot be used. Only "
                          "processes of the same user are accepted. Sockets that killed processes "
                          "left there are removed. A folder that cannot be used is an error, or, "
                          "where another transport is loaded, a warning."),
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
            .check = shm_check, .check_site = shm_check_site),
    PD_UNIT_END
};

PD_MODULE(.name = "shm", .version = "1.0", .summary = "Transport through shared memory.",
          .units = shm_units)
