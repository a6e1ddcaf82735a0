/* SPDX-License-Identifier: Apache-2.0 */
/* What text.c and token.c share: a walk over the tokens of files. */
#ifndef PD_CONF_TEXT_INT_H
#define PD_CONF_TEXT_INT_H

#include "conf/impl.h"

struct conf_key {
    struct conf_key *next;
    const char *name;
    uint32_t file, line;
};

struct conf_scope {
    char open;                      /* '{' (also the top level), '(' or '[' */
    uint32_t file, line;
    struct conf_key *keys;
    uint32_t n_keys;
};

struct conf_scan {
    struct pd_conf *conf;
    struct pd_conf_report *report;
    struct conf_text *out;
    struct conf_scope scopes[CONF_DEPTH_MAX + 1];
    uint32_t depth;
    uint32_t includes;              /* files open at the moment */
    char last;                      /* last token: punctuation, 's'tring, 'n'umber, 'w'ord, 0 */
    size_t comma_at;                /* offset of the last comma in the flat text */
};

/* One file being walked over. */
struct conf_file {
    const char *name;
    uint32_t index;
    const char *p, *end;
    uint32_t line;
    bool at_line_start;             /* only blanks since the last line feed */
};

static inline size_t conf_scan_left(const struct conf_file *f)
{
    return (size_t)(f->end - f->p);
}

static inline const char *conf_scan_name(const struct conf_scan *s, uint32_t index)
{
    return s->conf->files[index];
}

/* ---- text.c */
/* The flat line that is being made comes from here. */
void conf_scan_mark_line(struct conf_scan *s, const struct conf_file *f);
pd_status conf_scan_emit(struct conf_scan *s, const char *p, size_t n);
/* Copies n bytes of the file, line feeds included. */
pd_status conf_scan_copy(struct conf_scan *s, struct conf_file *f, size_t n);
/* Reads a whole file and walks over it; text replaces the reading. */
pd_status conf_scan_file(struct conf_scan *s, const char *path, const struct pd_str *text,
                         const struct conf_file *parent);

/* ---- token.c */
/* Takes the next token, or one blank; scopes below `floor` are another file's. */
void conf_scan_token(struct conf_scan *s, struct conf_file *f, uint32_t floor);

#endif
