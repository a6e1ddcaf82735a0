/* SPDX-License-Identifier: Apache-2.0 */
/* Logs: names, levels, rate limits and sinks.
 *
 * All logs of one tree share a root with one lock.  A line is formatted on the
 * caller's stack before the lock is taken; under the lock it is counted, dressed
 * and written with one system call.  Levels are read without the lock. */
#include "log/log.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "log/line.h"
#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define NAME_BYTES 96
#define MESSAGE_BYTES 4096
#define LINE_BYTES (8 * MESSAGE_BYTES)
#define RATE_SLOTS 512          /* a power of two */
#define MAX_OVERRIDES 64

struct root;

struct node {
    struct pd_log log;
    struct root *root;
    struct pd_list link;        /* in root->nodes */
    char name[NAME_BYTES];
};

/* How often one call site wrote in the current window. */
struct rate {
    const char *file;           /* NULL: free */
    uint32_t line;
    int32_t level;
    uint64_t window;            /* its start */
    uint32_t written;
    uint64_t held_back;
    char name[NAME_BYTES];
};

struct override {
    char name[NAME_BYTES];
    int32_t level;
};

struct root {
    struct node node;
    struct pd_log_config config;
    pthread_mutex_t lock;
    struct pd_list nodes;
    char *path;
    int fd;
    int32_t level;
    struct override overrides[MAX_OVERRIDES];
    size_t n_overrides;
    struct pd_buf line;
    struct pd_buf memory;
    uint64_t suppressed;
    uint64_t lost;
    struct rate rates[RATE_SLOTS];
};

static struct root *root_of(struct pd_log *log)
{
    return pd_container_of(log, struct node, log)->root;
}

/* Threads are counted as they write their first line. */
static uint32_t thread_number(void)
{
    static uint32_t last;
    static _Thread_local uint32_t mine;
    if (mine == 0)
        mine = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
    return mine;
}

static void keep_in_memory(struct root *root)
{
    size_t limit = root->config.memory_bytes;
    while (root->memory.n != 0 && root->memory.n + root->line.n > limit) {
        size_t end = pd_str_find_char(pd_buf_str(&root->memory), '\n');
        pd_buf_consume(&root->memory, end == PD_STR_NPOS ? root->memory.n : end + 1);
    }
    if (pd_buf_append_str(&root->memory, pd_buf_str(&root->line)) != PD_OK)
        root->lost++;
}

/* Dresses and writes one line; the root is locked. */
static void write_line(struct root *root, const char *name, int32_t level, uint64_t now,
                       struct pd_str req, struct pd_str message)
{
    struct pd_log_line line = {
        .level = pd_log_level_name(level),
        .name = name,
        .has_time = root->config.wall_ns != NULL && !root->config.hide_time,
        .wall_ns = now,
        .pid = root->config.pid,
        .thread = root->config.pid == 0 ? 0 : thread_number(),
        .req = req,
        .message = message,
    };
    pd_buf_clear(&root->line);
    if (root->config.is_json)
        pd_log_line_json(&line, &root->line);
    else
        pd_log_line_text(&line, &root->line);
    if (root->line.status != PD_OK) {
        root->lost++;
        return;
    }
    switch (root->config.sink) {
    case PD_LOG_CALLBACK:
        root->config.on_line(root->config.on_line_arg, level,
                             pd_str_sub(pd_buf_str(&root->line), 0, root->line.n - 1));
        break;
    case PD_LOG_MEMORY:
        keep_in_memory(root);
        break;
    default:
        if (pd_fd_write_all(root->fd, root->line.p, root->line.n) != PD_OK)
            root->lost++;
        break;
    }
}

static void tell_held_back(struct root *root, struct rate *rate, uint64_t now)
{
    char text[256];
    if (rate->held_back == 0)
        return;
    const char *slash = strrchr(rate->file, '/');
    int n = snprintf(text, sizeof text, "%llu similar suppressed (%.100s:%u)",
                     (unsigned long long)rate->held_back, slash == NULL ? rate->file : slash + 1,
                     rate->line);
    rate->held_back = 0;
    write_line(root, rate->name, rate->level, now, PD_LOG_NO_REQ, pd_str_of(text, (size_t)n));
}

/* Whether this site may write now; the root is locked. */
static bool admit(struct root *root, const struct node *node, const struct pd_log_site *site,
                  uint64_t now)
{
    const struct pd_log_config *config = &root->config;
    if (config->rate_lines == 0 || config->wall_ns == NULL)
        return true;
    uint64_t hash = pd_hash64(site->file, strlen(site->file), site->line);
    struct rate *rate = &root->rates[hash & (RATE_SLOTS - 1)];
    bool is_same = rate->file != NULL && rate->line == site->line &&
                   strcmp(rate->file, site->file) == 0;
    if (!is_same || now < rate->window || now - rate->window >= config->rate_ns) {
        if (rate->file != NULL)
            tell_held_back(root, rate, now);
        *rate = (struct rate){ .file = site->file, .line = site->line, .level = site->level,
                               .window = now };
        memcpy(rate->name, node->name, sizeof rate->name);
    }
    if (rate->written < config->rate_lines) {
        rate->written++;
        return true;
    }
    rate->held_back++;
    root->suppressed++;
    return false;
}

static void emit(struct pd_log *log, const struct pd_log_site *site, struct pd_str req,
                 const char *fmt, ...) PD_PRINTF(4, 5);

static void emit(struct pd_log *log, const struct pd_log_site *site, struct pd_str req,
                 const char *fmt, ...)
{
    struct node *node = pd_container_of(log, struct node, log);
    struct root *root = node->root;
    int saved_errno = errno;
    char text[MESSAGE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : PD_MIN((size_t)n, sizeof text - 1);
    if (n >= (int)sizeof text)
        memcpy(text + len - 3, "...", 3);
    uint64_t now = root->config.wall_ns == NULL ? 0 : root->config.wall_ns(root->config.wall_arg);
    pthread_mutex_lock(&root->lock);
    if (admit(root, node, site, now))
        write_line(root, node->name, site->level, now, req, pd_str_of(text, len));
    pthread_mutex_unlock(&root->lock);
    errno = saved_errno;
}

/* Whether an override for `over` covers a log called `name`. */
static bool covers(const char *over, const char *name)
{
    size_t n = strlen(over);
    return strncmp(over, name, n) == 0 && (name[n] == '\0' || name[n] == '.');
}

/* The level that holds for a node; the root is locked. */
static void apply_level(struct node *node)
{
    struct root *root = node->root;
    int32_t level = root->level;
    size_t best = 0;
    for (size_t i = 0; i < root->n_overrides; i++) {
        size_t n = strlen(root->overrides[i].name);
        if (n > best && covers(root->overrides[i].name, node->name)) {
            best = n;
            level = root->overrides[i].level;
        }
    }
    __atomic_store_n(&node->log.level, level, __ATOMIC_RELAXED);
}

static struct pd_log *child(struct pd_log *log, const char *name)
{
    struct node *parent = pd_container_of(log, struct node, log);
    struct root *root = parent->root;
    struct node *node = (struct node *)pd_calloc(1, sizeof *node);
    if (node == NULL)
        return NULL;
    node->log.ops = log->ops;
    node->root = root;
    size_t n = strlen(parent->name);
    memcpy(node->name, parent->name, n);
    if (n != 0 && n + 1 < sizeof node->name)
        node->name[n++] = '.';
    pd_str_copy(pd_str_from(name), node->name + n, sizeof node->name - n);
    pthread_mutex_lock(&root->lock);
    pd_list_append(&root->nodes, &node->link);
    apply_level(node);
    pthread_mutex_unlock(&root->lock);
    return &node->log;
}

static void child_free(struct pd_log *log)
{
    struct node *node = pd_container_of(log, struct node, log);
    struct root *root = node->root;
    pd_assert(node != &root->node);
    pthread_mutex_lock(&root->lock);
    pd_list_remove(&node->link);
    pthread_mutex_unlock(&root->lock);
    pd_free(node);
}

static const struct pd_log_ops log_ops = { sizeof log_ops, emit, child, child_free };

static pd_status open_file(const char *path, struct pd_err *err, int *fd)
{
    *fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    if (*fd < 0) {
        int e = errno;
        return pd_err_set(err, pd_status_from_errno(e), "cannot open log file \"%s\": %s", path,
                          strerror(e));
    }
    return PD_OK;
}

static pd_status open_sink(struct root *root, struct pd_err *err)
{
    switch (root->config.sink) {
    case PD_LOG_STDERR:
        root->fd = STDERR_FILENO;
        return PD_OK;
    case PD_LOG_FILE:
        if (root->config.path == NULL)
            return pd_err_set(err, PD_EINVAL, "a log file needs a path");
        root->path = pd_strdup(root->config.path);
        if (root->path == NULL)
            return pd_err_set(err, PD_ENOMEM, "out of memory");
        return open_file(root->path, err, &root->fd);
    case PD_LOG_MEMORY:
        if (root->config.memory_bytes == 0)
            root->config.memory_bytes = 1024 * 1024;
        pd_buf_init(&root->memory, root->config.memory_bytes + LINE_BYTES);
        return PD_OK;
    case PD_LOG_CALLBACK:
        if (root->config.on_line != NULL)
            return PD_OK;
        break;
    }
    return pd_err_set(err, PD_EINVAL, "this kind of log is not known, or its callback is missing");
}

static void free_root(struct root *root)
{
    if (root->config.sink == PD_LOG_FILE)
        pd_fd_close(&root->fd);
    pd_free(root->path);
    pd_buf_fini(&root->line);
    pd_buf_fini(&root->memory);
    pthread_mutex_destroy(&root->lock);
    pd_free(root);
}

pd_status pd_log_create(const struct pd_log_config *config, struct pd_err *err,
                        struct pd_log **out)
{
    struct root *root = (struct root *)pd_calloc(1, sizeof *root);
    if (root == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    root->config = *config;
    if (root->config.rate_ns == 0)
        root->config.rate_ns = PD_SEC;
    root->fd = -1;
    root->level = config->level;
    root->node.log.ops = &log_ops;
    root->node.log.level = config->level;
    root->node.root = root;
    pd_list_init(&root->node.link);
    pd_list_init(&root->nodes);
    pthread_mutex_init(&root->lock, NULL);
    pd_buf_init(&root->line, LINE_BYTES);
    pd_status status = open_sink(root, err);
    root->config.path = NULL;
    if (status != PD_OK) {
        free_root(root);
        return status;
    }
    *out = &root->node.log;
    return PD_OK;
}

void pd_log_destroy(struct pd_log *log)
{
    if (log == NULL)
        return;
    struct root *root = root_of(log);
    pd_assert(log == &root->node.log);
    pd_log_flush(log);
    PD_LIST_EACH_SAFE(&root->nodes, link)
        pd_free(PD_LIST_ENTRY(link, struct node, link));
    free_root(root);
}

/* Puts the level of one name into the table; the root is locked. */
static pd_status set_override(struct root *root, const char *name, int32_t level)
{
    size_t i = 0;
    while (i < root->n_overrides && strcmp(root->overrides[i].name, name) != 0)
        i++;
    if (i == MAX_OVERRIDES)
        return PD_ELIMIT;
    if (pd_str_copy(pd_str_from(name), root->overrides[i].name, NAME_BYTES) != PD_OK)
        return PD_EINVAL;
    root->overrides[i].level = level;
    if (i == root->n_overrides)
        root->n_overrides++;
    return PD_OK;
}

pd_status pd_log_set_level(struct pd_log *log, const char *name, int32_t level)
{
    struct root *root = root_of(log);
    pd_status status = PD_OK;
    if (level < PD_LOG_ERROR || level > PD_LOG_TRACE)
        return PD_EINVAL;
    pthread_mutex_lock(&root->lock);
    if (name == NULL || name[0] == '\0') {
        root->level = level;
        root->n_overrides = 0;
    } else {
        status = set_override(root, name, level);
    }
    apply_level(&root->node);
    PD_LIST_EACH(&root->nodes, link)
        apply_level(PD_LIST_ENTRY(link, struct node, link));
    pthread_mutex_unlock(&root->lock);
    return status;
}

pd_status pd_log_reopen(struct pd_log *log, struct pd_err *err)
{
    struct root *root = root_of(log);
    int fd;
    if (root->config.sink != PD_LOG_FILE)
        return PD_OK;
    pd_status status = open_file(root->path, err, &fd);
    if (status != PD_OK)
        return status;
    pthread_mutex_lock(&root->lock);
    int old = root->fd;
    root->fd = fd;
    pthread_mutex_unlock(&root->lock);
    close(old);
    return PD_OK;
}

void pd_log_flush(struct pd_log *log)
{
    struct root *root = root_of(log);
    uint64_t now = root->config.wall_ns == NULL ? 0 : root->config.wall_ns(root->config.wall_arg);
    pthread_mutex_lock(&root->lock);
    for (size_t i = 0; i < RATE_SLOTS; i++) {
        if (root->rates[i].file != NULL)
            tell_held_back(root, &root->rates[i], now);
    }
    pthread_mutex_unlock(&root->lock);
}

static uint64_t read_locked(struct root *root, const uint64_t *v)
{
    pthread_mutex_lock(&root->lock);
    uint64_t out = *v;
    pthread_mutex_unlock(&root->lock);
    return out;
}

uint64_t pd_log_suppressed(struct pd_log *log)
{
    struct root *root = root_of(log);
    return read_locked(root, &root->suppressed);
}

uint64_t pd_log_lost(struct pd_log *log)
{
    struct root *root = root_of(log);
    return read_locked(root, &root->lost);
}

char *pd_log_memory(struct pd_log *log)
{
    struct root *root = root_of(log);
    if (root->config.sink != PD_LOG_MEMORY)
        return NULL;
    pthread_mutex_lock(&root->lock);
    char *copy = pd_str_dup(pd_buf_str(&root->memory));
    pthread_mutex_unlock(&root->lock);
    return copy;
}

void pd_log_memory_clear(struct pd_log *log)
{
    struct root *root = root_of(log);
    pthread_mutex_lock(&root->lock);
    if (root->config.sink == PD_LOG_MEMORY)
        pd_buf_clear(&root->memory);
    pthread_mutex_unlock(&root->lock);
}

static const char *const level_names[] = { "error", "warn", "notice", "info", "debug", "trace" };

pd_status pd_log_level_parse(struct pd_str s, int32_t *level)
{
    for (size_t i = 0; i < PD_ARRAY_LEN(level_names); i++) {
        if (pd_str_is(s, level_names[i])) {
            *level = (int32_t)i;
            return PD_OK;
        }
    }
    return PD_EINVAL;
}

const char *pd_log_level_name(int32_t level)
{
    return level >= 0 && (size_t)level < PD_ARRAY_LEN(level_names) ? level_names[level] : "?";
}
