/* SPDX-License-Identifier: Apache-2.0 */
/* Servers and nodes from a file that people or programs edit while the node runs.
 * The file is looked at again and again rather than watched: that works alike for
 * editors, renames, symbolic links that are swapped (ConfigMaps) and network file
 * systems.  Looking and reading happen on a thread of its own. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <pdplane/host.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>

#include "source.h"

/* A file that changed so lately may change again without a trace. */
#define FRESH_NS (2 * PD_SEC)

struct file_conf {
    const char *path;
    uint64_t interval;
};

/* What a look found. */
enum { FOUND_SAME, FOUND_SET, FOUND_NOTHING, FOUND_BROKEN };

struct pd_discovery {
    const struct file_conf *conf;
    const struct pd_json_api *json;
    struct pd_loop *loop;
    struct pd_discovery_sink *sink;
    struct pd_workq *queue;
    struct pd_work work;
    struct pd_timer timer;
    bool is_looking, look_again, is_closing;
    void (*on_closed)(void *arg);
    void *arg;
    /* Of the work, while it runs. */
    struct stat seen;               /* of what was read last */
    bool has_seen;
    uint32_t found;
    uint32_t last;                  /* FOUND_SET or FOUND_BROKEN: what `seen` was */
    struct file_set set;
    char why[700];
};

/* ---- looking, on the thread ------------------------------------------------------------- */

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec &&
           a->st_mode == b->st_mode;
}

static bool is_fresh(struct pd_discovery *d, const struct stat *st)
{
    uint64_t changed = (uint64_t)st->st_mtim.tv_sec * PD_SEC + (uint64_t)st->st_mtim.tv_nsec;
    return changed + FRESH_NS > pd_loop_wall(d->loop);
}

static uint32_t nothing(struct pd_discovery *d)
{
    snprintf(d->why, sizeof d->why, "%s: %s", d->conf->path, strerror(errno));
    return FOUND_NOTHING;
}

static uint32_t refused(struct pd_discovery *d, const char *why)
{
    snprintf(d->why, sizeof d->why, "%s: %s", d->conf->path, why);
    return FOUND_BROKEN;
}

/* Returns bytes read, or -1. */
static ssize_t read_all(int fd, char *to, size_t size)
{
    size_t n = 0;
    while (n < size) {
        ssize_t got = read(fd, to + n, size - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    return (ssize_t)n;
}

static uint32_t look_fd(struct pd_discovery *d, int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return nothing(d);
    if (d->has_seen && is_same(&d->seen, &st) && !is_fresh(d, &st))
        return FOUND_SAME;
    d->seen = st;
    d->has_seen = true;
    if (!S_ISREG(st.st_mode))
        return refused(d, "it is no file");
    if (st.st_mode & S_IWOTH)
        return refused(d, "everybody may write it; take that away with: chmod o-w");
    /* One more than it may have, so that more is noticed. */
    char *text = malloc(FILE_BYTES_MAX + 1);
    if (text == NULL)
        return refused(d, "out of memory");
    ssize_t n = read_all(fd, text, FILE_BYTES_MAX + 1);
    uint32_t found = FOUND_SET;
    if (n < 0)
        found = nothing(d);
    else if ((size_t)n > FILE_BYTES_MAX)
        found = refused(d, "it has more than 4 MiB");
    else if (file_set_read(d->json, d->conf->path, (struct pd_str){ text, (size_t)n }, &d->set, d->why,
                           sizeof d->why) != PD_OK)
        found = FOUND_BROKEN;
    free(text);
    return found;
}

static void run(struct pd_work *work, void *arg)
{
    struct pd_discovery *d = arg;
    int fd = open(d->conf->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    (void)work;
    if (fd < 0) {
        d->found = nothing(d);
    } else {
        d->found = look_fd(d, fd);
        close(fd);
    }
    if (d->found == FOUND_NOTHING)
        d->has_seen = false;
    else if (d->found != FOUND_SAME)
        d->last = d->found;
}

/* ---- telling, on the loop ------------------------------------------------------------------ */

static void tell(struct pd_discovery *d)
{
    switch (d->found == FOUND_SAME && d->last == FOUND_BROKEN ? FOUND_BROKEN : d->found) {
    case FOUND_SAME:
        pd_discovery_synced(d->sink);
        break;
    case FOUND_SET:
        pd_discovery_begin(d->sink);
        for (uint32_t i = 0; i < d->set.n; i++)
            pd_discovery_put(d->sink, &d->set.entries[i]);
        pd_discovery_end(d->sink);
        break;
    case FOUND_BROKEN:
        pd_discovery_broken(d->sink, d->why);
        break;
    default:
        pd_discovery_lost(d->sink, d->why);
    }
    file_set_clear(&d->set);
}

static void done(struct pd_work *work, pd_status status, void *arg)
{
    struct pd_discovery *d = arg;
    (void)work;
    d->is_looking = false;
    if (d->is_closing) {
        file_set_clear(&d->set);
        return;
    }
    if (status == PD_OK)
        tell(d);
    pd_timer_start(&d->timer, d->look_again ? 0 : d->conf->interval);
    d->look_again = false;
}

static void look(struct pd_timer *timer, void *arg)
{
    struct pd_discovery *d = arg;
    d->work = (struct pd_work){ .run = run, .done = done, .arg = d, .name = "discovery file",
                                .sim_cost_ns = 100 * PD_US };
    if (pd_work_submit(d->loop, d->queue, &d->work) == PD_OK)
        d->is_looking = true;
    else
        pd_timer_start(timer, d->conf->interval);
}

/* ---- life -------------------------------------------------------------------------------------- */

static pd_status file_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_discovery **out,
                             struct pd_err *err)
{
    struct pd_workq_opts opts = { .size = sizeof opts, .name = "discovery", .threads = 1, .limit = 2 };
    struct pd_discovery *d = calloc(1, sizeof *d);
    if (d == NULL)
        return source_error(err, PD_ENOMEM, "out of memory");
    d->conf = conf;
    d->loop = ctx->loop;
    d->json = pd_host()->table(ctx->host, PD_JSON_TABLE, PD_JSON_VERSION);
    pd_timer_init(&d->timer, d->loop, "discovery file", look, d);
    pd_status status = d->json == NULL ? PD_ENOSYS : pd_workq_create(d->loop, &opts, &d->queue);
    if (status != PD_OK) {
        source_error(err, status, status == PD_ENOSYS
                                      ? "this pdplane does not offer the table that the module was built for"
                                      : "a thread cannot be started: %s", pd_host()->status_text(status));
        free(d);
        return status;
    }
    *out = d;
    return PD_OK;
}

static pd_status file_start(struct pd_discovery *d, struct pd_discovery_sink *sink, struct pd_err *err)
{
    (void)err;
    d->sink = sink;
    pd_timer_start(&d->timer, 0);
    return PD_OK;
}

static void file_refresh(struct pd_discovery *d)
{
    if (d->is_looking)
        d->look_again = true;
    else
        pd_timer_start(&d->timer, 0);
}

static void closed(void *arg)
{
    struct pd_discovery *d = arg;
    void (*on_closed)(void *) = d->on_closed;
    void *closed_arg = d->arg;
    free(d);
    on_closed(closed_arg);
}

static void file_destroy(struct pd_discovery *d, void (*on_closed)(void *arg), void *arg)
{
    d->is_closing = true;
    d->on_closed = on_closed;
    d->arg = arg;
    pd_timer_stop(&d->timer);
    pd_workq_close(d->loop, d->queue, closed, d);
}

static const struct pd_option file_options[] = {
    PD_OPT_STRING("path", struct file_conf, path, NULL,
                  .flags = PD_OPT_REQUIRED | PD_OPT_NONEMPTY | PD_OPT_PATH,
                  .help = "JSON file with the lists endpoints and peers. Others may not be able to write it. A "
                          "file with a mistake is not used; what it said before holds on."),
    PD_OPT_DURATION("interval", struct file_conf, interval, "1s", .min = 50 * (int64_t)PD_MS,
                    .max = 3600 * (int64_t)PD_SEC, .help = "How often the file is looked at."),
    PD_OPT_END
};

static const struct pd_discovery_ops file_ops = {
    .head = PD_OPS(pd_discovery_ops, PD_DISCOVERY_V1),
    .flags = PD_DISCOVERY_REFRESH,
    .create = file_create,
    .start = file_start,
    .refresh = file_refresh,
    .destroy = file_destroy,
};

static const struct pd_unit file_units[] = {
    PD_UNIT(.kind = PD_KIND_DISCOVERY, .name = "file", .ops = &file_ops.head, .options = file_options,
            .conf_size = sizeof(struct file_conf),
            .summary = "Names servers and nodes from a file that may change."),
    PD_UNIT_END
};

PD_MODULE(.name = "file", .version = "0.1.0", .summary = "Names servers and nodes from a file that may change.",
          .units = file_units)
