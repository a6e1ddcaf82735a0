/* SPDX-License-Identifier: Apache-2.0 */
/* The names of sockets, and what becomes of those whose process was killed.
 *
 * Sockets have a path, not an abstract name, because containers that share a folder do
 * not share a network namespace.  So a killed process leaves its path behind, and the
 * next process that starts in this folder removes it, without a lock:
 *
 *   - A name is random and belongs to one life of one node.  Once its process is gone
 *     nobody binds it again, so what was found dead is still dead when it is removed.
 *   - Whether a process has the socket is asked of the kernel (the loop does so before
 *     it takes a path over), which also knows of one that is bound and does not listen
 *     yet.  A process between its bind and its listen keeps its socket. */
#include "shm.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "pdplane-shm-"
#define RANDOM_BYTES 16u

void pd_shm_name(struct pd_loop *loop, const char *dir, struct pd_addr *out)
{
    uint8_t r[RANDOM_BYTES];
    int n;

    pd_loop_random(loop, r, sizeof(r));
    memset(out, 0, sizeof(*out));
    out->family = PD_AF_UNIX;
    n = snprintf(out->path, sizeof(out->path), "%s/" PREFIX, dir);
    for (uint32_t i = 0; i < RANDOM_BYTES; i++)
        n += snprintf(out->path + n, sizeof(out->path) - (size_t)n, "%02x", r[i]);
}

static bool is_name(const char *name)
{
    size_t prefix = sizeof(PREFIX) - 1;

    return strncmp(name, PREFIX, prefix) == 0 && strlen(name) == prefix + 2 * RANDOM_BYTES &&
           strspn(name + prefix, "0123456789abcdef") == 2 * RANDOM_BYTES;
}

static void nobody_comes(struct pd_listener *l, struct pd_stream *s, void *arg)
{
    (void)l;
    (void)s;
    (void)arg;
}

/* Takes the path over, which works only when no process has it, and lets it go. */
static bool remove_dead(struct pd_loop *loop, const char *dir, const char *name)
{
    const struct pd_listener_opts opts = { .size = sizeof(opts), .name = "shm sweep",
                                           .unix_mode = 0600 };
    struct pd_addr addr = { .family = PD_AF_UNIX };
    struct pd_listener *l;
    int n;

    n = snprintf(addr.path, sizeof(addr.path), "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof(addr.path) ||
        pd_listener_open(loop, &addr, &opts, nobody_comes, NULL, &l) != PD_OK)
        return false;
    pd_listener_close(loop, l);
    return true;
}

void pd_shm_sweep(struct pd_loop *loop, struct pd_log *log, const char *dir)
{
    uint32_t names = 0, tried = 0, removed = 0;
    DIR *d = opendir(dir);
    struct dirent *e;
    struct stat sb;

    if (d == NULL)
        return;                 /* who listens there says why */
    while (names < PD_SHM_NAMES && tried < PD_SHM_SOCKETS && (e = readdir(d)) != NULL) {
        names++;
        if (!is_name(e->d_name) || fstatat(dirfd(d), e->d_name, &sb, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISSOCK(sb.st_mode) || sb.st_uid != geteuid())
            continue;
        tried++;
        removed += remove_dead(loop, dir, e->d_name);
    }
    closedir(d);
    if (removed > 0)
        pd_log_info(log, "removed %u socket%s of killed processes from %s", removed,
                    removed == 1 ? "" : "s", dir);
    if (names == PD_SHM_NAMES || tried == PD_SHM_SOCKETS)
        pd_log_info(log, "looked at %u names and %u sockets in %s, and at no more", names, tried, dir);
}
