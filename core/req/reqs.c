/* SPDX-License-Identifier: Apache-2.0 */
/* The request registry: records live in slabs that are made when they are
 * first needed and kept, so that a node under steady load allocates nothing
 * for a request.  A record is in exactly one list: free, live or finished.
 * The books hold at every moment: accepted = live + all outcomes. */
#include "req/reqs.h"

#include "base/compiler.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "req/explain.h"
#include "req/meter.h"
#include "req/texts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SLAB_RECORDS 16u
/* Of the memory of the explanation and of the texts, what every record has; more is
 * allocated when it is needed. */
#define EXPLAIN_FIRST 128u
#define TEXTS_FIRST 96u

struct record {
    struct pd_req req;      /* first: the two are cast into each other */
    struct pd_list link;
    struct pd_explain explain;
    struct pd_req_texts texts;
    struct pd_req_meter_seat seat;
};

struct slab {
    struct slab *next;
};

struct pd_reqs {
    struct pd_reqs_conf conf;
    struct pd_req_meter meter;
    struct pd_list live;    /* oldest first */
    struct pd_list done;    /* oldest first */
    struct pd_list spare;
    uint64_t done_n;
    uint64_t number;
    struct pd_req_counts counts;
    struct slab *slabs;
    uint64_t bytes;
    void (*on_step)(const struct pd_req *req, void *arg); /* NULL: nobody looks */
    void *on_step_arg;
};

const struct pd_option pd_reqs_options[] = {
    PD_OPT_INT("live", struct pd_reqs_conf, live, "16384", .min = 1, .max = 1 << 20,
               .unit = "requests",
               .help = "Most requests that may be live; further ones are refused with 503."),
    PD_OPT_INT("finished", struct pd_reqs_conf, finished, "1024", .max = 1 << 20,
               .unit = "requests",
               .help = "Ended requests to remember for pdctl requests and pdctl explain."),
    PD_OPT_SIZE("explain", struct pd_reqs_conf, explain_bytes, "4k", .min = PD_EXPLAIN_MIN,
                .max = 1 << 20,
                .help = "Room for the scheduler's explanation of one request; what does not fit is "
                        "counted."),
    PD_OPT_END
};

static struct record *record_of(const struct pd_req *req)
{
    return (struct record *)(void *)(uintptr_t)req;
}

static struct record *linked(struct pd_list *link)
{
    return PD_LIST_ENTRY(link, struct record, link);
}

#define SLAB_HEAD ((sizeof(struct slab) + 15u) & ~(size_t)15u)

static struct record *slab_records(struct slab *slab)
{
    return (struct record *)(void *)((char *)slab + SLAB_HEAD);
}

/* A chunk of records; behind them the memory of their explanations and texts. */
static pd_status slab_add(struct pd_reqs *reqs)
{
    size_t room = PD_MIN((size_t)reqs->conf.explain_bytes, EXPLAIN_FIRST);
    size_t bytes = SLAB_HEAD + SLAB_RECORDS * (sizeof(struct record) + room + TEXTS_FIRST);
    struct slab *slab = pd_calloc(1, bytes);

    if (slab == NULL)
        return PD_ENOMEM;
    slab->next = reqs->slabs;
    reqs->slabs = slab;
    reqs->bytes += bytes;
    struct record *records = slab_records(slab);
    uint8_t *explain = (uint8_t *)(records + SLAB_RECORDS);
    char *texts = (char *)(explain + SLAB_RECORDS * room);
    for (uint32_t i = 0; i < SLAB_RECORDS; i++) {
        pd_req_texts_init(&records[i].texts, texts + i * TEXTS_FIRST, TEXTS_FIRST);
        pd_explain_init(&records[i].explain, explain + i * room, (uint32_t)room,
                        (uint32_t)reqs->conf.explain_bytes);
        pd_list_append(&reqs->spare, &records[i].link);
    }
    return PD_OK;
}

pd_status pd_reqs_create(const struct pd_reqs_conf *conf, struct pd_metrics *metrics,
                         struct pd_err *err, struct pd_reqs **out)
{
    if (conf->live == 0 || conf->explain_bytes < PD_EXPLAIN_MIN || conf->explain_bytes > 1 << 20)
        return pd_err_set(err, PD_EINVAL, "the limits of the request registry are out of range");
    struct pd_reqs *reqs = pd_calloc(1, sizeof *reqs);
    if (reqs == NULL)
        return pd_err_set(err, PD_ENOMEM, "no memory for the request registry");
    reqs->conf = *conf;
    reqs->conf.explain_bytes = (conf->explain_bytes + 15u) & ~(uint64_t)15u;
    reqs->bytes = sizeof *reqs;
    pd_list_init(&reqs->live);
    pd_list_init(&reqs->done);
    pd_list_init(&reqs->spare);
    pd_status st = pd_req_meter_init(&reqs->meter, metrics, err);
    if (st != PD_OK) {
        pd_reqs_destroy(reqs);
        return st;
    }
    *out = reqs;
    return PD_OK;
}

void pd_reqs_destroy(struct pd_reqs *reqs)
{
    if (reqs == NULL)
        return;
    while (reqs->slabs != NULL) {
        struct slab *slab = reqs->slabs;
        reqs->slabs = slab->next;
        for (uint32_t i = 0; i < SLAB_RECORDS; i++) {
            pd_explain_fini(&slab_records(slab)[i].explain);
            pd_req_texts_fini(&slab_records(slab)[i].texts);
        }
        pd_free(slab);
    }
    pd_free(reqs);
}

static void done_trim(struct pd_reqs *reqs)
{
    while (reqs->done_n > reqs->conf.finished) {
        pd_list_prepend(&reqs->spare, pd_list_pop(&reqs->done));
        reqs->done_n--;
    }
}

void pd_reqs_set_limits(struct pd_reqs *reqs, const struct pd_reqs_conf *conf)
{
    reqs->conf = *conf;
    reqs->conf.explain_bytes = (conf->explain_bytes + 15u) & ~(uint64_t)15u;
    done_trim(reqs);
}

const struct pd_req_api *pd_reqs_api(void)
{
    static const struct pd_req_api api = {
        .size = sizeof api,
        .version = PD_REQ_VERSION,
        .begin = pd_req_begin,
        .stage = pd_req_stage,
        .tokens = pd_req_tokens,
        .finish = pd_req_finish,
        .explain = pd_req_explain,
        .note = pd_req_note,
        .explain_next = pd_req_explain_next,
        .explain_lost = pd_req_explain_lost,
        .find = pd_reqs_find,
        .next = pd_reqs_next,
        .counts = pd_reqs_counts,
        .stage_name = pd_req_stage_name,
        .outcome_name = pd_req_outcome_name,
        .explain_table = pd_req_explain_table,
        .watch = pd_reqs_watch,
        .explain_run = pd_req_explain_run,
        .text = pd_req_text,
    };
    return &api;
}

typedef int8_t chars_t __attribute__((vector_size(16)));

/* Copies 16 bytes and marks those that are not visible ASCII, or a quote or backslash. */
static inline chars_t copy_chars(char *to, const char *from)
{
    chars_t c;

    memcpy(&c, from, sizeof c);
    memcpy(to, &c, sizeof c);
    return (chars_t)(c <= ' ') | (chars_t)(c == 0x7f) | (chars_t)(c == '"') | (chars_t)(c == '\\');
}

static inline bool is_visible(char c)
{
    return c > ' ' && c < 0x7f && c != '"' && c != '\\';
}

/* An id is printed in logs and tables: anything but visible ASCII becomes '_'. */
static void copy_id(struct pd_req *req, struct pd_str id)
{
    size_t n = PD_MIN(id.n, (size_t)PD_REQ_ID_MAX), at = 0;
    uint64_t bad[2] = { n < 16, 0 };

    if (n == 0) {
        snprintf(req->id, sizeof req->id, "req-%llu", (unsigned long long)req->number);
        return;
    }
    req->id[n] = '\0';
    if (n >= 16) {
        chars_t marks = copy_chars(req->id + n - 16, id.p + n - 16);
        for (; at + 16 < n; at += 16)
            marks |= copy_chars(req->id + at, id.p + at);
        memcpy(bad, &marks, sizeof bad);
    }
    for (at = 0; at < n && (bad[0] | bad[1]) != 0; at++)
        req->id[at] = is_visible(id.p[at]) ? id.p[at] : '_';
}

void pd_reqs_watch(struct pd_reqs *reqs, void (*on_step)(const struct pd_req *req, void *arg), void *arg)
{
    reqs->on_step = on_step;
    reqs->on_step_arg = arg;
}

static void tell(const struct pd_reqs *reqs, const struct pd_req *req)
{
    if (reqs->on_step != NULL)
        reqs->on_step(req, reqs->on_step_arg);
}

static pd_status refuse(struct pd_reqs *reqs, uint32_t role, pd_status st)
{
    reqs->counts.accepted++;
    reqs->counts.outcome[PD_REQ_SHED]++;
    pd_req_meter_refused(&reqs->meter, role);
    return st;
}

/* Everything but the id and the texts. */
static void clear(struct pd_req *req)
{
    const size_t numbers = offsetof(struct pd_req, stage);

    memset((char *)req + numbers, 0, sizeof *req - numbers);
}

pd_status pd_req_begin(struct pd_reqs *reqs, struct pd_str id, uint32_t role, pd_time now,
                       struct pd_req **out)
{
    if (reqs->counts.outcome[PD_REQ_LIVE] >= reqs->conf.live)
        return refuse(reqs, role, PD_ELIMIT);
    if (pd_list_is_empty(&reqs->spare) && slab_add(reqs) != PD_OK)
        return refuse(reqs, role, PD_ENOMEM);

    struct record *record = linked(pd_list_pop(&reqs->spare));
    clear(&record->req);
    pd_req_texts_begin(&record->texts, &record->req);
    pd_explain_begin(&record->explain, (uint32_t)reqs->conf.explain_bytes);
    record->seat.itl = NULL;
    record->req.size = sizeof record->req;
    record->req.role = role;
    record->req.number = ++reqs->number;
    copy_id(&record->req, id);
    record->req.stage = PD_REQ_ACCEPTED;
    record->req.at[PD_REQ_ACCEPTED] = now;
    pd_list_append(&reqs->live, &record->link);
    reqs->counts.accepted++;
    reqs->counts.outcome[PD_REQ_LIVE]++;
    pd_req_meter_begin(&reqs->meter, role);
    *out = &record->req;
    tell(reqs, &record->req);
    return PD_OK;
}

void pd_req_text(struct pd_reqs *reqs, struct pd_req *req, const char **text, struct pd_str s)
{
    (void)reqs;
    pd_assert(req->outcome == PD_REQ_LIVE);
    pd_req_texts_set(&record_of(req)->texts, req, text, s);
}

void pd_req_stage(struct pd_reqs *reqs, struct pd_req *req, uint32_t stage, pd_time now)
{
    pd_assert(req->outcome == PD_REQ_LIVE && stage < PD_REQ_ENDED);
    req->stage = stage;
    req->at[stage] = now;
    tell(reqs, req);
}

static __attribute__((noinline)) void count_tokens(struct pd_reqs *reqs, struct pd_req *req, uint32_t n,
                                                   pd_time now)
{
    if (n == 0)
        return;
    if (req->output_tokens == 0)
        req->first_token = now;
    else
        pd_req_meter_gap(&reqs->meter, req, n, now - req->last_token, &record_of(req)->seat);
    req->output_tokens = n > UINT32_MAX - req->output_tokens ? UINT32_MAX : req->output_tokens + n;
    req->last_token = now;
    tell(reqs, req);
}

void pd_req_tokens(struct pd_reqs *reqs, struct pd_req *req, uint32_t n, pd_time now)
{
    const struct pd_req_meter_seat *seat = &record_of(req)->seat;

    pd_assert(req->outcome == PD_REQ_LIVE);
    /* Most come alone, behind others, and nobody looks at each. */
    if (n != 1 || seat->itl == NULL || req->output_tokens == UINT32_MAX || reqs->on_step != NULL) {
        count_tokens(reqs, req, n, now);
        return;
    }
    pd_req_meter_gap_seated(&reqs->meter, now - req->last_token, seat);
    req->output_tokens++;
    req->last_token = now;
}

void pd_req_finish(struct pd_reqs *reqs, struct pd_req *req, uint32_t outcome, uint32_t http_status,
                   struct pd_str code, pd_time now)
{
    struct record *record = record_of(req);

    pd_assert(req->outcome == PD_REQ_LIVE && outcome > PD_REQ_LIVE && outcome < PD_REQ_OUTCOMES);
    req->outcome = outcome;
    req->http_status = http_status;
    req->stage = PD_REQ_ENDED;
    req->at[PD_REQ_ENDED] = now;
    req->user = NULL;
    if (code.n > 0)
        pd_req_texts_set(&record->texts, req, &req->code, code);
    reqs->counts.outcome[PD_REQ_LIVE]--;
    reqs->counts.outcome[outcome]++;
    pd_req_meter_end(&reqs->meter, req);

    pd_list_remove(&record->link);
    pd_list_append(&reqs->done, &record->link);
    reqs->done_n++;
    done_trim(reqs);
}

void pd_req_explain(void *req, const struct pd_explain_line *line)
{
    pd_explain_add(&record_of(req)->explain, line);
}

bool pd_req_explain_run(void *req, const struct pd_explain_run *run)
{
    return pd_explain_add_run(&record_of(req)->explain, run);
}

void pd_req_explain_table(void *req, const struct pd_explain_table *table)
{
    pd_explain_add_table(&record_of(req)->explain, table);
}

void pd_req_note(struct pd_req *req, const char *fmt, ...)
{
    char text[256];
    struct pd_explain_line line = { .kind = PD_EXPLAIN_NOTE };
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    line.text = pd_str_from(text);
    pd_req_explain(req, &line);
}

bool pd_req_explain_next(const struct pd_req *req, uint32_t *cursor, struct pd_explain_line *out)
{
    return pd_explain_next(&record_of(req)->explain, cursor, out);
}

uint32_t pd_req_explain_lost(const struct pd_req *req)
{
    return record_of(req)->explain.lost;
}

/* The newest of a list with this id, or with this number when by_number. */
static const struct pd_req *find_in(const struct pd_list *head, struct pd_str id, bool by_number,
                                    uint64_t number)
{
    for (struct pd_list *l = head->prev; l != head; l = l->prev) {
        const struct pd_req *req = &linked(l)->req;
        if (by_number ? req->number == number : pd_str_is(id, req->id))
            return req;
    }
    return NULL;
}

const struct pd_req *pd_reqs_find(const struct pd_reqs *reqs, struct pd_str id)
{
    uint64_t number = 0;
    const struct pd_req *req = find_in(&reqs->live, id, false, 0);

    if (req == NULL)
        req = find_in(&reqs->done, id, false, 0);
    if (req == NULL && pd_str_parse_u64(id, &number) == PD_OK) {
        req = find_in(&reqs->live, id, true, number);
        if (req == NULL)
            req = find_in(&reqs->done, id, true, number);
    }
    return req;
}

/* The cursor is the address of the next link; the heads mark where the walk
 * changes lists and ends. */
bool pd_reqs_next(const struct pd_reqs *reqs, uint64_t *cursor, const struct pd_req **out)
{
    const struct pd_list *link = *cursor == 0 ? reqs->live.next
                                              : (const struct pd_list *)(uintptr_t)*cursor;

    if (link == &reqs->live)
        link = reqs->done.prev;
    if (link == &reqs->done) {
        *cursor = (uint64_t)(uintptr_t)link;
        return false;
    }
    const struct pd_req *req = &linked((struct pd_list *)(uintptr_t)link)->req;
    bool live = req->outcome == PD_REQ_LIVE;
    *cursor = (uint64_t)(uintptr_t)(live ? link->next : link->prev);
    *out = req;
    return true;
}

void pd_reqs_counts(const struct pd_reqs *reqs, struct pd_req_counts *out)
{
    *out = reqs->counts;
}

bool pd_reqs_balanced(const struct pd_reqs *reqs)
{
    uint64_t sum = 0;

    for (uint32_t o = 0; o < PD_REQ_OUTCOMES; o++)
        sum += reqs->counts.outcome[o];
    return sum == reqs->counts.accepted &&
           pd_list_count(&reqs->live) == reqs->counts.outcome[PD_REQ_LIVE] &&
           pd_list_count(&reqs->done) == reqs->done_n && reqs->done_n <= reqs->conf.finished;
}

uint64_t pd_reqs_bytes(const struct pd_reqs *reqs)
{
    return reqs->bytes;
}
