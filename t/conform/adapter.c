/* SPDX-License-Identifier: Apache-2.0 */
/* Cases for adapters: what they say must be fit for an HTTP request. */
#include "conform/conform.h"

#include <pdplane/adapter.h>

static void check_http(const struct pd_adapter_http *h)
{
    CF_NEED(h->target.n > 0 && h->target.p[0] == '/', "target \"%.*s\" does not begin with \"/\"",
            PD_STR_ARG(h->target));
    for (size_t i = 0; i < h->target.n; i++)
        CF_NEED((unsigned char)h->target.p[i] > ' ' && h->target.p[i] != 0x7f,
                "target \"%.*s\" has a character that must be escaped", PD_STR_ARG(h->target));
    CF_NEED(h->n_headers <= PD_ADAPTER_MAX_HEADERS, "%u headers are more than %u", h->n_headers,
            PD_ADAPTER_MAX_HEADERS);
    for (uint32_t k = 0; k < h->n_headers; k++) {
        struct pd_str name = h->headers[k].name, value = h->headers[k].value;
        CF_NEED(name.n > 0, "header %u has no name", k);
        for (size_t i = 0; i < name.n; i++) {
            char c = name.p[i];
            CF_NEED((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_',
                    "header name \"%.*s\" is not in lower case", PD_STR_ARG(name));
        }
        for (size_t i = 0; i < value.n; i++)
            CF_NEED((unsigned char)value.p[i] >= ' ' || value.p[i] == '\t',
                    "the value of header \"%.*s\" has a control character", PD_STR_ARG(name));
    }
}

static bool same(const struct pd_adapter_http *a, const struct pd_adapter_http *b)
{
    bool equal = a->n_headers == b->n_headers && a->target.n == b->target.n &&
                 memcmp(a->target.p, b->target.p, a->target.n) == 0;

    for (uint32_t k = 0; equal && k < a->n_headers; k++)
        equal = a->headers[k].value.n == b->headers[k].value.n &&
                memcmp(a->headers[k].value.p, b->headers[k].value.p, a->headers[k].value.n) == 0;
    return equal;
}

static void run_http(const struct cf_unit *u)
{
    const struct pd_adapter_ops *ops = (const void *)u->ops;
    struct cf_world w;
    struct cf_inst i;
    uint32_t offered = 0;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    for (uint32_t what = PD_ADAPTER_CHAT; what <= PD_ADAPTER_INFO; what++) {
        struct pd_adapter_http h[2];
        pd_status st = PD_OK;
        memset(h, 0, sizeof(h));
        for (int k = 0; k < 2 && st == PD_OK; k++) {
            h[k].size = sizeof(h[k]);
            st = ops->http(i.p, what, &h[k]);
        }
        CF_NEED(st == PD_OK || st == PD_ENOSYS, "http returns %d", st);
        if (st != PD_OK)
            continue;
        offered += what == PD_ADAPTER_CHAT || what == PD_ADAPTER_COMPLETIONS;
        check_http(&h[0]);
        CF_NEED(same(&h[0], &h[1]), "the second answer differs from the first");
    }
    CF_NEED(offered > 0, "neither chat nor completions is offered");
    cf_destroy(&w, &i);
    cf_world_close(&w);
}

static void answer(struct cf_inst *i, struct cf_bytes *out)
{
    const struct pd_adapter_ops *ops = (const void *)i->w->u->ops;

    for (uint32_t what = PD_ADAPTER_CHAT; what <= PD_ADAPTER_MODELS; what++) {
        struct pd_adapter_http h = { .size = sizeof(h) };
        pd_status st = ops->http(i->p, what, &h);
        cf_put(out, &st, sizeof(st));
        if (st != PD_OK)
            continue;
        check_http(&h);
        cf_put(out, h.target.p, h.target.n);
        for (uint32_t k = 0; k < h.n_headers; k++)
            cf_put(out, h.headers[k].value.p, h.headers[k].value.n);
    }
}

void cf_adapter_beside(const struct cf_unit *u)
{
    cf_beside(u, answer);
}

/* A member inside of what the edit `outer` of the same leg gives. */
static void check_inner(const struct pd_adapter_edit *e, const struct pd_adapter_edit *outer)
{
    size_t n = outer != NULL ? outer->member.n : 0;
    CF_NEED(outer != NULL && e->member.n > n + 1 && memcmp(e->member.p, outer->member.p, n) == 0 &&
                e->member.p[n] == '.' && memchr(e->member.p + n + 1, '.', e->member.n - n - 1) == NULL,
            "member \"%.*s\" does not follow the one that it stands in", PD_STR_ARG(e->member));
    CF_NEED(outer->op == PD_ADAPTER_SET_TAKEN ||
                (outer->op == PD_ADAPTER_SET && outer->text.n > 2 && outer->text.p[0] == '{' &&
                 outer->text.p[outer->text.n - 1] == '}' && e->op != PD_ADAPTER_SET_FROM),
            "member \"%.*s\" stands in no object", PD_STR_ARG(e->member));
    CF_NEED(e->op == PD_ADAPTER_SET || e->op == PD_ADAPTER_SET_ROOM || e->op == PD_ADAPTER_SET_FROM,
            "member \"%.*s\" inside of another one cannot be changed like this", PD_STR_ARG(e->member));
    CF_NEED(e->flags == outer->flags && (e->flags & PD_ADAPTER_EACH) == 0,
            "member \"%.*s\" has other flags than the one that it stands in", PD_STR_ARG(e->member));
}

/* Both of them may stand in one body. */
static bool meet(const struct pd_adapter_edit *a, const struct pd_adapter_edit *b)
{
    uint32_t kinds = PD_ADAPTER_IN_CHAT | PD_ADAPTER_IN_TEXT;
    uint32_t ka = a->flags & kinds, kb = b->flags & kinds;
    return a->member.n == b->member.n && memcmp(a->member.p, b->member.p, a->member.n) == 0 &&
           !(ka != 0 && kb != 0 && (ka & kb) == 0);
}

static void check_edits(const struct pd_adapter_edit *edits, uint32_t n, const char *leg, bool is_prefill,
                        bool has_answer, bool *takes)
{
    const struct pd_adapter_edit *outer = NULL;
    uint32_t n_inner = 0;
    CF_NEED(n <= PD_ADAPTER_MAX_EDITS, "%u changes of the %s leg are more than %u", n, leg, PD_ADAPTER_MAX_EDITS);
    for (uint32_t k = 0; k < n; k++) {
        const struct pd_adapter_edit *e = &edits[k];
        bool has_text = e->op == PD_ADAPTER_SET || e->op == PD_ADAPTER_SET_GIVEN;
        bool may_each = has_text || e->op == PD_ADAPTER_SET_HOST || e->op == PD_ADAPTER_SET_ROOM;
        uint32_t known = PD_ADAPTER_IN_CHAT | PD_ADAPTER_IN_TEXT | (is_prefill ? PD_ADAPTER_IF_MORE : 0u) |
                         (may_each ? PD_ADAPTER_EACH : 0u);
        CF_NEED(e->op >= PD_ADAPTER_SET && e->op <= PD_ADAPTER_SET_FROM, "change %u of the %s leg has no known op",
                k, leg);
        CF_NEED((e->flags & ~known) == 0, "change %u of the %s leg has flags that its op does not know", k, leg);
        CF_NEED(e->member.n > 0 && e->member.n <= PD_ADAPTER_MAX_MEMBER, "change %u of the %s leg has no member",
                k, leg);
        for (size_t i = 0; i < e->member.n; i++)
            CF_NEED((unsigned char)e->member.p[i] >= ' ' && e->member.p[i] != '"' && e->member.p[i] != '\\',
                    "member \"%.*s\" needs escapes", PD_STR_ARG(e->member));
        if (memchr(e->member.p, '.', e->member.n) == NULL) {
            outer = e;
        } else {
            check_inner(e, outer);
            CF_NEED(++n_inner <= PD_ADAPTER_MAX_INNER, "%u members inside of others are more than %u", n_inner,
                    PD_ADAPTER_MAX_INNER);
        }
        has_text |= e->op == PD_ADAPTER_SET_FROM;
        CF_NEED(has_text == (e->text.n > 0) && e->text.n <= PD_ADAPTER_MAX_VALUE,
                "member \"%.*s\": a value belongs to those that are set, and only to them", PD_STR_ARG(e->member));
        CF_NEED((e->op != PD_ADAPTER_SET_TAKEN && e->op != PD_ADAPTER_SET_FROM) || has_answer,
                "member \"%.*s\" of the %s leg is taken out of an answer that is not there yet",
                PD_STR_ARG(e->member), leg);
        *takes |= e->op == PD_ADAPTER_SET_TAKEN;
        for (uint32_t j = 0; j < k; j++)
            CF_NEED(!meet(&edits[j], e), "member \"%.*s\" of the %s leg is changed twice", PD_STR_ARG(e->member),
                    leg);
    }
}

/* What says that the prefill server's answer is all there is. */
static void check_finish(const struct pd_adapter_split *s)
{
    CF_NEED(s->needs.n <= PD_ADAPTER_MAX_MEMBER && (s->needs.n == 0 || s->take.n > 0),
            "what is needed is no part of what is taken");
    CF_NEED(s->finish.n <= PD_ADAPTER_MAX_MEMBER, "the path of the end has too long a name");
    CF_NEED(s->finish.n == 0 || (s->flags & PD_ADAPTER_PAIR) == 0, "an answer that is not read tells of no end");
    CF_NEED(s->n_follows <= PD_ADAPTER_MAX_FOLLOWS && s->n_hidden <= PD_ADAPTER_MAX_HIDDEN,
            "%u ends and %u hidden members are more than %u and %u", s->n_follows, s->n_hidden,
            PD_ADAPTER_MAX_FOLLOWS, PD_ADAPTER_MAX_HIDDEN);
    CF_NEED(s->finish.n > 0 || (s->n_follows == 0 && s->n_hidden == 0), "ends are told of without a path to them");
    for (uint32_t k = 0; k < s->n_prefill && k < PD_ADAPTER_MAX_EDITS; k++)
        CF_NEED((s->prefill[k].flags & PD_ADAPTER_IF_MORE) == 0 || s->finish.n > 0,
                "a prefill server that never gives the whole answer is asked for it");
}

static void run_split(const struct cf_unit *u)
{
    const struct pd_adapter_ops *ops = (const void *)u->ops;
    struct pd_adapter_split s[2];
    struct cf_world w;
    struct cf_inst i;
    pd_status st = PD_ENOSYS;
    bool takes = false;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    memset(s, 0, sizeof(s));
    for (int k = 0; k < 2 && ops->split != NULL; k++) {
        s[k].size = sizeof(s[k]);
        st = ops->split(i.p, &s[k]);
    }
    CF_NEED(st == PD_OK || st == PD_ENOSYS, "split returns %d", st);
    if (st == PD_OK) {
        CF_NEED(s[0].protocol.n > 0, "the protocol has no name");
        CF_NEED(s[0].take.n <= PD_ADAPTER_MAX_MEMBER, "the member that is taken has too long a name");
        CF_NEED(s[0].n_whole <= PD_ADAPTER_MAX_WHOLE, "%u members are more than %u", s[0].n_whole,
                PD_ADAPTER_MAX_WHOLE);
        check_edits(s[0].prefill, s[0].n_prefill, "prefill", true, false, &takes);
        check_edits(s[0].decode, s[0].n_decode, "decode", false, (s[0].flags & PD_ADAPTER_PAIR) == 0, &takes);
        check_finish(&s[0]);
        CF_NEED((s[0].flags & ~(PD_ADAPTER_PAIR | PD_ADAPTER_APART)) == 0, "split has flags that nobody knows");
        CF_NEED(takes == (s[0].take.n > 0), "what is taken out of the answer must go into the decode leg");
        CF_NEED(memcmp(&s[0], &s[1], sizeof(s[0])) == 0, "the second answer differs from the first");
    }
    cf_destroy(&w, &i);
    cf_world_close(&w);
}

static void run_expects(const struct cf_unit *u)
{
    const struct pd_adapter_ops *ops = (const void *)u->ops;
    struct cf_world w;
    struct cf_inst i;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    for (uint32_t roles = 1; roles <= 3 && ops->expects != NULL; roles++) {
        struct pd_adapter_expects e[2];
        pd_status st = PD_OK;
        memset(e, 0, sizeof(e));
        for (int k = 0; k < 2; k++) {
            e[k].size = sizeof(e[k]);
            st = ops->expects(i.p, roles, &e[k]);
        }
        CF_NEED(st == PD_OK || st == PD_ENOSYS, "expects returns %d", st);
        if (st != PD_OK)
            continue;
        CF_NEED(e[0].n <= PD_ADAPTER_MAX_EXPECTS, "%u members are more than %u", e[0].n, PD_ADAPTER_MAX_EXPECTS);
        for (uint32_t k = 0; k < e[0].n; k++) {
            struct pd_str m = e[0].items[k].member;
            CF_NEED(m.n > 0 && m.n <= PD_ADAPTER_MAX_MEMBER, "member %u has no fit name", k);
            for (size_t j = 0; j < m.n; j++)
                CF_NEED((unsigned char)m.p[j] >= ' ' && m.p[j] != '"' && m.p[j] != '\\' && m.p[j] != '.',
                        "member \"%.*s\" cannot be found by its name", PD_STR_ARG(m));
        }
        CF_NEED(memcmp(&e[0], &e[1], sizeof(e[0])) == 0, "the second answer differs from the first");
    }
    cf_destroy(&w, &i);
    cf_world_close(&w);
}

static void run_unknown(const struct cf_unit *u)
{
    const struct pd_adapter_ops *ops = (const void *)u->ops;
    struct pd_adapter_http h = { .size = sizeof(h) };
    struct cf_world w;
    struct cf_inst i;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    CF_NEED(ops->http(i.p, 4711, &h) == PD_ENOSYS, "a request of an unknown kind is not answered PD_ENOSYS");
    cf_destroy(&w, &i);
    cf_world_close(&w);
}

static void run_growth(const struct cf_unit *u)
{
    const struct pd_adapter_ops *ops = (const void *)u->ops;
    struct cf_world w;
    struct cf_inst i;
    uint64_t before = 0;

    cf_world_open(&w, u);
    cf_create_ok(&w, &i, 0);
    for (uint32_t n = 0; n < 3000; n++) {
        struct pd_adapter_http h = { .size = sizeof(h) };
        ops->http(i.p, 1 + n % 4, &h);
        if (n == 30)
            before = cf_memory();
    }
    CF_NEED(cf_memory() < before + 4096, "each answer keeps memory");
    cf_destroy(&w, &i);
    cf_world_close(&w);
}

const struct cf_case cf_adapter_cases[] = {
    { "http", "targets begin with \"/\", header names are in lower case, answers stay", run_http },
    { "split", "what two legs of a request have otherwise can be spliced", run_split },
    { "expects", "what a server must say of itself can be looked up, and stays", run_expects },
    { "unknown_request", "a request of an unknown kind is not offered", run_unknown },
    { "growth", "answers keep no memory", run_growth },
    { NULL, NULL, NULL },
};
