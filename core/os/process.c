/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and ending child processes. */
#include "os/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/status.h"
#include "os/signal.h"

extern char **environ;

pd_status pd_process_self(char *out, size_t size)
{
    static const char gone[] = " (deleted)";
    ssize_t n = readlink("/proc/self/exe", out, size);
    if (n < 0)
        return pd_status_from_errno(errno);
    if ((size_t)n >= size)
        return PD_ELIMIT;
    out[n] = '\0';
    /* The kernel marks a replaced file; its old path now names the new one. */
    size_t tail = sizeof gone - 1;
    if ((size_t)n > tail && strcmp(out + n - tail, gone) == 0)
        out[(size_t)n - tail] = '\0';
    return PD_OK;
}

static char **environment_with(const char *const *extra)
{
    size_t n = 0, m = 0, at = 0;
    while (environ[n] != NULL)
        n++;
    while (extra != NULL && extra[m] != NULL)
        m++;
    char **out = pd_calloc(n + m + 1, sizeof *out);
    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < m; i++)
        out[at++] = (char *)(uintptr_t)extra[i];
    for (size_t i = 0; i < n; i++) {
        bool is_replaced = false;
        for (size_t k = 0; k < m; k++) {
            size_t name = strcspn(extra[k], "=") + 1;
            is_replaced |= strncmp(environ[i], extra[k], name) == 0;
        }
        if (!is_replaced)
            out[at++] = environ[i];
    }
    return out;
}

pd_status pd_process_spawn(const char *path, char *const *argv, const char *const *extra, pid_t *pid)
{
    posix_spawnattr_t attr;
    sigset_t none, all;
    char **env = environment_with(extra);
    if (env == NULL)
        return PD_ENOMEM;
    int err = posix_spawnattr_init(&attr);
    if (err == 0) {
        sigemptyset(&none);
        sigfillset(&all);
        posix_spawnattr_setsigmask(&attr, &none);
        posix_spawnattr_setsigdefault(&attr, &all);
        posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        err = posix_spawn(pid, path, NULL, &attr, argv, env);
        posix_spawnattr_destroy(&attr);
    }
    pd_free(env);
    return pd_status_from_errno(err);
}

pd_status pd_process_run(const char *path, char *const *argv, uint32_t limit_ms, int *status)
{
    pid_t pid, got;
    uint32_t waited = 0;
    pd_status st = pd_process_spawn(path, argv, NULL, &pid);
    if (st != PD_OK)
        return st;
    while ((got = waitpid(pid, status, WNOHANG)) == 0 && waited < limit_ms) {
        poll(NULL, 0, 1);
        waited++;
    }
    if (got != 0)
        return got > 0 ? PD_OK : pd_status_from_errno(errno);
    kill(pid, SIGKILL);
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        continue;
    return PD_ETIMEDOUT;
}

pd_status pd_process_reap(pid_t *pid, int *status)
{
    pid_t got;
    do
        got = waitpid(-1, status, WNOHANG);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == ECHILD ? PD_ENOENT : pd_status_from_errno(errno);
    if (got == 0)
        return PD_EAGAIN;
    *pid = got;
    return PD_OK;
}

pd_status pd_process_wait(pid_t pid, int *status)
{
    pid_t got;
    do
        got = waitpid(pid, status, 0);
    while (got < 0 && errno == EINTR);
    return got == pid ? PD_OK : PD_ENOENT;
}

pd_status pd_process_kill(pid_t pid, int number)
{
    return kill(pid, number) == 0 ? PD_OK : pd_status_from_errno(errno);
}

pd_status pd_process_read(pid_t pid, const uint64_t *from, void *const *to, size_t n, uint64_t bytes)
{
    enum { BATCH = 64 };
    struct iovec local[BATCH], remote[BATCH];
    for (size_t i = 0; i < n; i += BATCH) {
        size_t count = n - i < BATCH ? n - i : BATCH;
        for (size_t k = 0; k < count; k++) {
            local[k] = (struct iovec){ to[i + k], (size_t)bytes };
            remote[k] = (struct iovec){ (void *)(uintptr_t)from[i + k], (size_t)bytes };
        }
        ssize_t got = process_vm_readv(pid, local, count, remote, count, 0);
        if (got < 0)
            return errno == EPERM ? PD_EPERM : errno == ENOSYS ? PD_ENOSYS : PD_EIO;
        if ((uint64_t)got != count * bytes)
            return PD_EIO;
    }
    return PD_OK;
}

const char *pd_process_status_text(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(out, size, "signal %s", pd_signal_name(WTERMSIG(status)));
    else
        snprintf(out, size, "exit status %d", WEXITSTATUS(status));
    return out;
}
