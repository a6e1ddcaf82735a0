/* SPDX-License-Identifier: Apache-2.0 */
/* A pid file that is locked while its process lives.  Main thread. */
#ifndef PD_OS_PIDFILE_H
#define PD_OS_PIDFILE_H

#include <pdplane/types.h>

struct pd_pidfile;

/* Creates or takes over the file and writes this process's id.  Gives:
 * pd_pidfile_close.  PD_OK; PD_EBUSY: a living process holds it; otherwise what
 * the system said, in err. */
pd_status pd_pidfile_open(const char *path, struct pd_err *err, struct pd_pidfile **out);
/* Removes the file and frees; NULL is allowed. */
void pd_pidfile_close(struct pd_pidfile *pidfile);
/* The id in a file that a living process holds; PD_ENOENT when there is no
 * file or no such process, PD_EINVAL when the content is no number. */
pd_status pd_pidfile_read(const char *path, pid_t *out);

#endif
