/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a file whose content runs with our rights: only when nobody could have
 * put it there, or change it, who does not have these rights already. */
#ifndef PD_OS_TRUST_H
#define PD_OS_TRUST_H

#include <limits.h>

#include <pdplane/types.h>

struct pd_trust {
    int fd;                 /* the file, open for reading; the caller's to close */
    bool is_settled;        /* nobody else can make `real` name another file */
    char real[PATH_MAX];    /* the path without symbolic links */
};

/* Opens `path` one component after another, none of them twice, so that what was
 * checked is what is opened.  The rules, for what symbolic links lead to as well:
 *
 *   file    regular, of root or of this user, writable for its owner only
 *   folder  that holds the file: of root or of this user, writable for its owner
 *           only
 *   folder  further up: writable for its owner only, or with the sticky bit (like
 *           /tmp); what is entered through one with the sticky bit, folder or
 *           link, belongs to root or to this user
 *
 * A folder further up may belong to someone else, who can exchange what is below
 * it for another folder of root or of this user, and for nothing else;
 * is_settled tells.  PD_OK, PD_ENOENT, PD_EPERM, PD_EINVAL, PD_ELIMIT or PD_EIO,
 * with file, reason and remedy in err.  Any thread. */
pd_status pd_trust_open(const char *path, struct pd_err *err, struct pd_trust *out);

#endif
