/* SPDX-License-Identifier: Apache-2.0 */
/* Sources of discovery under test, what they tell, and their world.  The world is
 * changed by the command of option -x, which knows the source: it is asked for
 * servers by numbers, and each must be named with the address
 * http://127.0.0.NUMBER:PORT. */
#ifndef PD_T_CONFORM_DISCOVERY_SOURCE_H
#define PD_T_CONFORM_DISCOVERY_SOURCE_H

#include "conform/conform.h"

#include <pdplane/discovery.h>

enum { ENTRIES_MAX = 512, FIRST_SECONDS = 10 };

struct told {
    char name[PD_DISCOVERY_NAME_MAX + 1];
    char address[PD_DISCOVERY_ADDRESS_MAX + 1];
};

/* A sink that writes down and checks. */
struct sink {
    struct pd_discovery_sink head;
    struct told set[ENTRIES_MAX], next[ENTRIES_MAX];
    uint32_t n, n_next;
    bool has_begun, is_inside, is_closed;
    uint32_t tells;                 /* end, synced, lost, broken */
    uint32_t synced, lost;
    bool is_lost;
};

struct source {
    struct cf_world *w;
    struct cf_inst i;
    struct sink *s;
};

const struct pd_discovery_ops *source_ops(const struct cf_unit *u);
struct told *told_find(struct told *set, uint32_t n, struct pd_str name);
/* Runs the command with a verb; false: the source knows no such thing. */
bool world_change(const char *text);
/* Something to name, where somebody can see to it. */
void world_fill(void);
void source_start(struct cf_world *w, struct source *o, uint32_t number);
void source_end(struct source *o);
bool source_has_told(void *arg);
/* Waits for the first word. */
void source_first(struct source *o);
/* Asks for another look, where that is claimed. */
void source_refresh(struct source *o);

#endif
