/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes of the manager.  Main thread. */
#ifndef PD_OS_PROCESS_H
#define PD_OS_PROCESS_H

#include <pdplane/types.h>

/* The path of the running program, as it can be executed again even after the
 * file was replaced by a new version.  PD_OK, PD_ELIMIT, PD_EIO. */
pd_status pd_process_self(char *out, size_t size);

/* Starts path with argv (ended by NULL) and the environment plus `extra`
 * ("NAME=value", ended by NULL); signals have their default actions.
 * Descriptors without close-on-exec are inherited.  PD_OK and *pid. */
pd_status pd_process_spawn(const char *path, char *const *argv, const char *const *extra, pid_t *pid);

/* Starts it likewise and waits until it has ended, at most limit_ms; then it is
 * killed.  PD_OK with *status as waitpid gives it; PD_ETIMEDOUT. */
pd_status pd_process_run(const char *path, char *const *argv, uint32_t limit_ms, int *status);

/* Takes one ended child: PD_OK with *pid and *status as waitpid gives them,
 * PD_EAGAIN when none has ended, PD_ENOENT when there is no child. */
pd_status pd_process_reap(pid_t *pid, int *status);

/* Waits for one child; PD_OK with *status, PD_ENOENT when it is none. */
pd_status pd_process_wait(pid_t pid, int *status);

/* Sends a signal; PD_OK or what the system said. */
pd_status pd_process_kill(pid_t pid, int number);

/* Copies n runs of another process's memory into as many of this one's, each of
 * `bytes` bytes; PD_OK, PD_EPERM, PD_ENOSYS, PD_EIO. */
pd_status pd_process_read(pid_t pid, const uint64_t *from, void *const *to, size_t n, uint64_t bytes);

/* "exit status 1" or "signal KILL" for a status of pd_process_reap. */
const char *pd_process_status_text(int status, char *out, size_t size);

#endif
