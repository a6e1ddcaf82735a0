/* SPDX-License-Identifier: Apache-2.0 */
/* Rights of the process: who it becomes once it has its sockets and files, and
 * what it can no longer do then.  Main thread, before others are started. */
#ifndef PD_OS_PRIV_H
#define PD_OS_PRIV_H

#include <pdplane/types.h>

struct pd_priv {
    bool is_set;               /* false: it stays who it is */
    uid_t uid;
    gid_t gid;
    char user[64];
};

/* Looks the names up; either may be NULL.  Without a group it is the user's.
 * PD_OK, PD_ENOENT with err: there is none of that name. */
pd_status pd_priv_find(const char *user, const char *group, struct pd_priv *out, struct pd_err *err);
/* Whether pd_priv_drop would do anything. */
bool pd_priv_is_due(const struct pd_priv *priv);
/* Gives a file or folder to the one that the process is to become; nothing when
 * that is not due or there is no such file.  PD_OK, PD_EPERM with err. */
pd_status pd_priv_give(const struct pd_priv *priv, const char *path, struct pd_err *err);
/* Becomes that user for good: groups, capabilities and new privileges are gone.
 * PD_OK, also when the process is that user already; PD_EPERM with err. */
pd_status pd_priv_drop(const struct pd_priv *priv, struct pd_err *err);
/* No core files, and no tracing by others of the same user. */
void pd_priv_no_cores(void);

#endif
