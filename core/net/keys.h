/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of clients: a file with one line "sha256:HEX LABEL" for each, read
 * again when it has changed.  The keys themselves are nowhere; what a client
 * shows is hashed and compared with all of them in a time that tells nothing.
 *
 * Loop thread. */
#ifndef PD_NET_KEYS_H
#define PD_NET_KEYS_H

#include <pdplane/log.h>
#include <pdplane/loop.h>

#define PD_KEYS_LABEL 64        /* bytes of a label at most */
#define PD_KEYS_MAX 4096        /* keys in a file */

struct pd_keys;
struct pd_http_head;

/* Reads the file, whose mode must be 0640 or less.  path is copied, log (may be
 * NULL) borrowed.  PD_OK, or err names the line.  Gives: pd_keys_destroy. */
pd_status pd_keys_create(struct pd_loop *loop, struct pd_log *log, const char *path,
                         struct pd_keys **out, struct pd_err *err);
/* Takes keys; NULL is allowed.  Those who hold it may go on using it. */
void pd_keys_destroy(struct pd_keys *keys);
/* Its file is looked at again at the next request. */
void pd_keys_look(struct pd_keys *keys);
/* Keeps it usable until pd_keys_release; NULL is allowed. */
void pd_keys_hold(struct pd_keys *keys);
void pd_keys_release(struct pd_keys *keys);
/* The label of a key, zero-terminated and borrowed until the next call; NULL
 * when it is none of the file.  Looks at the file first, at most every 2 s. */
const char *pd_keys_find(struct pd_keys *keys, struct pd_str key);
/* The key that a request shows: Authorization: Bearer, or x-api-key.  Empty:
 * none.  Borrowed from head. */
struct pd_str pd_keys_shown(const struct pd_http_head *head);

#endif
