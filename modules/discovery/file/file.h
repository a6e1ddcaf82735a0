/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the module: what a discovery file says. */
#ifndef PD_DISCOVERY_FILE_H
#define PD_DISCOVERY_FILE_H

#include <pdplane/discovery.h>
#include <pdplane/json.h>

#define FILE_BYTES_MAX (4u << 20)
#define FILE_ENTRIES_MAX 16384u

struct file_chunk;

/* A whole file taken apart; entries point into chunks. */
struct file_set {
    struct file_chunk *chunks;
    struct pd_discovery_entry *entries;
    uint32_t n, cap;
};

/* Reads a document; path is only for messages.  PD_OK, or why ("PATH:LINE: ...")
 * says what is wrong.  Any thread.  Gives: file_set_clear, also on failure. */
pd_status file_set_read(const struct pd_json_api *json, const char *path, struct pd_str doc,
                        struct file_set *out, char *why, size_t why_size);
void file_set_clear(struct file_set *set);

#endif
