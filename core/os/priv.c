/* SPDX-License-Identifier: Apache-2.0 */
/* Rights of the process. */
#include "os/priv.h"

#include "base/status.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static pd_status none(struct pd_err *err, const char *what, const char *name)
{
    pd_err_set(err, PD_ENOENT, "there is no %s \"%s\"", what, name);
    pd_err_hint(err, "make it, for example with adduser --system --group");
    return PD_ENOENT;
}

pd_status pd_priv_find(const char *user, const char *group, struct pd_priv *out, struct pd_err *err)
{
    memset(out, 0, sizeof *out);
    out->uid = geteuid();
    out->gid = getegid();
    if (user == NULL && group == NULL)
        return PD_OK;
    out->is_set = true;
    if (user != NULL) {
        const struct passwd *p = getpwnam(user);
        if (p == NULL)
            return none(err, "user", user);
        out->uid = p->pw_uid;
        out->gid = p->pw_gid;
        snprintf(out->user, sizeof out->user, "%s", user);
    }
    if (group != NULL) {
        const struct group *g = getgrnam(group);
        if (g == NULL)
            return none(err, "group", group);
        out->gid = g->gr_gid;
    }
    return PD_OK;
}

static pd_status refused(struct pd_err *err, const char *what)
{
    pd_err_set(err, PD_EPERM, "cannot %s: %s", what, strerror(errno));
    pd_err_hint(err, "start as root, or as the user that \"user\" names");
    return PD_EPERM;
}

bool pd_priv_is_due(const struct pd_priv *priv)
{
    return priv->is_set && (priv->uid != geteuid() || priv->gid != getegid());
}

pd_status pd_priv_give(const struct pd_priv *priv, const char *path, struct pd_err *err)
{
    if (!pd_priv_is_due(priv) || lchown(path, priv->uid, priv->gid) == 0 || errno == ENOENT)
        return PD_OK;
    char what[512];
    snprintf(what, sizeof what, "give \"%s\" to user %u", path, (unsigned)priv->uid);
    return refused(err, what);
}

pd_status pd_priv_drop(const struct pd_priv *priv, struct pd_err *err)
{
    if (!priv->is_set)
        return PD_OK;
    if (pd_priv_is_due(priv)) {
        if ((priv->user[0] != '\0' ? initgroups(priv->user, priv->gid) : setgroups(0, NULL)) != 0)
            return refused(err, "set the groups of the process");
        if (setresgid(priv->gid, priv->gid, priv->gid) != 0)
            return refused(err, "become that group");
        if (setresuid(priv->uid, priv->uid, priv->uid) != 0)
            return refused(err, "become that user");
        if (priv->uid != 0 && setuid(0) == 0)
            return pd_err_set(err, PD_EPERM, "the process can still become root");
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return refused(err, "give up new privileges");
    return PD_OK;
}

void pd_priv_no_cores(void)
{
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}
