/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files.  Blocking: for start-up and configuration, not for a loop. */
#ifndef PD_OS_FILE_H
#define PD_OS_FILE_H

#include "base/buf.h"

#include <pdplane/types.h>

/* Appends the whole content of a regular file (or a pipe).  PD_OK; PD_ELIMIT:
 * it exceeds limit bytes or the buffer's limit; PD_ENOENT, PD_EPERM, PD_EIO,
 * PD_ENOMEM; err (may be NULL) names the file. */
pd_status pd_file_read(const char *path, size_t limit, struct pd_buf *out, struct pd_err *err);
/* As pd_file_read for a secret: the file must be owned by root or this user and
 * its mode must be 0640 or less; one line feed at the end is cut off. */
pd_status pd_file_read_secret(const char *path, size_t limit, struct pd_buf *out,
                              struct pd_err *err);
/* Replaces the file at once: writes beside it, syncs, renames. */
pd_status pd_file_write(const char *path, struct pd_str content, mode_t mode, struct pd_err *err);
/* Whether something is there, and whether it is a folder. */
bool pd_file_exists(const char *path);
bool pd_file_is_dir(const char *path);
/* Makes the folder that a file is to stand in. */
pd_status pd_file_parent_make(const char *path, struct pd_err *err);
/* Makes a folder and those above it; PD_OK when it is there already. */
pd_status pd_file_mkdir(const char *path, mode_t mode, struct pd_err *err);

#endif
