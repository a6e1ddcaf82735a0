/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to libconfig: parses a flat text and copies what libconfig built
 * into a tree of our own, so that no libconfig type leaves this file and the
 * generation does not depend on its memory.
 *
 * Written against version 1.5; newer ones behave the same because text.c has
 * already removed what they treat differently. */
#include "conf/impl.h"

#include <libconfig.h>
#include <string.h>

static pd_status copy_setting(struct pd_conf *conf, const struct conf_text *t, struct pd_conf_report *report,
                              const config_setting_t *in, uint32_t depth, struct pd_conf_node **out);

void conf_node_append(struct pd_conf_node *parent, struct pd_conf_node *child)
{
    child->next = NULL;
    if (parent->last == NULL)
        parent->first = child;
    else
        parent->last->next = child;
    parent->last = child;
    parent->count++;
}

void conf_node_remove(struct pd_conf_node *parent, const struct pd_conf_node *child)
{
    struct pd_conf_node *before = NULL;
    for (struct pd_conf_node *n = parent->first; n != child; n = n->next)
        before = n;
    if (before == NULL)
        parent->first = child->next;
    else
        before->next = child->next;
    if (parent->last == child)
        parent->last = before;
    parent->count--;
}

struct pd_conf_node *conf_node_child(const struct pd_conf_node *group, const char *name)
{
    for (struct pd_conf_node *n = group->first; n != NULL; n = n->next) {
        if (n->name != NULL && strcmp(n->name, name) == 0)
            return n;
    }
    return NULL;
}

const char *conf_node_type_text(const struct pd_conf_node *node)
{
    switch (node->type) {
    case NODE_GROUP:
        return "a group { }";
    case NODE_LIST:
        return "a list ( )";
    case NODE_ARRAY:
        return "an array [ ]";
    case NODE_BOOL:
        return "true or false";
    case NODE_INT:
        return "an integer";
    case NODE_FLOAT:
        return "a number with a fraction";
    case NODE_STRING:
        return "a string";
    }
    return "something else";
}

static pd_status copy_children(struct pd_conf *conf, const struct conf_text *t,
                               struct pd_conf_report *report, const config_setting_t *in, uint32_t depth,
                               struct pd_conf_node *node)
{
    int n = config_setting_length(in);
    for (int i = 0; i < n; i++) {
        struct pd_conf_node *child;
        pd_status st = copy_setting(conf, t, report, config_setting_get_elem(in, (unsigned)i), depth + 1,
                                    &child);
        if (st != PD_OK)
            return st;
        conf_node_append(node, child);
    }
    return PD_OK;
}

static const char *copy_text(struct pd_conf *conf, const char *s)
{
    return pd_arena_memdup(&conf->arena, s, strlen(s) + 1);
}

static pd_status copy_setting(struct pd_conf *conf, const struct conf_text *t, struct pd_conf_report *report,
                              const config_setting_t *in, uint32_t depth, struct pd_conf_node **out)
{
    struct pd_conf_node *node = pd_arena_calloc(&conf->arena, 1, sizeof *node);
    if (node == NULL)
        return conf_no_memory(report);
    node->place = conf_text_place(conf, t, config_setting_source_line(in));
    if (depth > CONF_DEPTH_MAX + 1)
        return pd_conf_error(report, node->place.file, node->place.line, "nested too deep");
    if (config_setting_name(in) != NULL) {
        node->name = copy_text(conf, config_setting_name(in));
        if (node->name == NULL)
            return conf_no_memory(report);
    }
    *out = node;
    switch (config_setting_type(in)) {
    case CONFIG_TYPE_GROUP:
        node->type = NODE_GROUP;
        return copy_children(conf, t, report, in, depth, node);
    case CONFIG_TYPE_LIST:
        node->type = NODE_LIST;
        return copy_children(conf, t, report, in, depth, node);
    case CONFIG_TYPE_ARRAY:
        node->type = NODE_ARRAY;
        return copy_children(conf, t, report, in, depth, node);
    case CONFIG_TYPE_BOOL:
        node->type = NODE_BOOL;
        node->u.b = config_setting_get_bool(in) != 0;
        return PD_OK;
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        node->type = NODE_INT;
        node->u.i = config_setting_get_int64(in);
        return PD_OK;
    case CONFIG_TYPE_FLOAT:
        node->type = NODE_FLOAT;
        node->u.d = config_setting_get_float(in);
        return PD_OK;
    case CONFIG_TYPE_STRING:
        node->type = NODE_STRING;
        node->u.s = copy_text(conf, config_setting_get_string(in));
        return node->u.s == NULL ? conf_no_memory(report) : PD_OK;
    default:
        return pd_conf_error(report, node->place.file, node->place.line, "value of an unknown type");
    }
}

/* libconfig's own words are few; these say the same to an operator. */
static pd_status parse_error(struct pd_conf *conf, const struct conf_text *t, const config_t *config,
                             struct pd_conf_report *report)
{
    struct pd_conf_place at = conf_text_place(conf, t, (uint32_t)config_error_line(config));
    const char *text = config_error_text(config);
    if (text != NULL && strstr(text, "mismatched") != NULL)
        return pd_conf_error(report, at.file, at.line, "values of an array [ ] differ in type"
                             "\na list ( ) may hold different types");
    if (text != NULL && strcmp(text, "syntax error") != 0)
        return pd_conf_error(report, at.file, at.line, "%s", text);
    return pd_conf_error(report, at.file, at.line, "syntax error at this line or just before it"
                         "\noptions look like: name = value;");
}

pd_status conf_tree_parse(struct pd_conf *conf, struct conf_text *t, struct pd_conf_report *report,
                          struct pd_conf_node **out)
{
    const char *text = pd_buf_cstr(&t->flat);
    if (text == NULL)
        return conf_no_memory(report);
    config_t config;
    config_init(&config);
    pd_status st;
    if (config_read_string(&config, text) != CONFIG_TRUE)
        st = parse_error(conf, t, &config, report);
    else
        st = copy_setting(conf, t, report, config_root_setting(&config), 0, out);
    config_destroy(&config);
    return st;
}
