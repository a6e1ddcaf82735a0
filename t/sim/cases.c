/* SPDX-License-Identifier: Apache-2.0 */
/* The requests, and what of an answer is compared.
 *
 * Every case has a greedy or seeded answer, so there is exactly one right text
 * for each of its choices. */
#include "fuzz.h"

uint64_t fuzz_next(struct fuzz_rng *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t fuzz_range(struct fuzz_rng *r, uint64_t lo, uint64_t hi)
{
    return lo + fuzz_next(r) % (hi - lo + 1);
}

bool fuzz_percent(struct fuzz_rng *r, uint32_t percent)
{
    return fuzz_next(r) % 100 < percent;
}

/* ---- the list ---------------------------------------------------------------- */

static const char *const words[] = {
    "lion", "lamp", "river", "honey", "silver", "goat", "train", "moon", "the", "ball", "Tom", "red",
};

/* A text of about n words; equal beginnings for equal `story`. */
static void text_make(char *out, size_t size, uint32_t story, uint32_t n, uint32_t tail)
{
    struct fuzz_rng r = { story };
    size_t at = 0;
    for (uint32_t i = 0; i < n && at + 16 < size; i++) {
        if (i + 4 == n)
            r.state += tail;
        at += (size_t)snprintf(out + at, size - at, "%s%s", i > 0 ? " " : "",
                               words[fuzz_next(&r) % (sizeof words / sizeof words[0])]);
    }
}

static void sampling_make(char *out, size_t size, struct fuzz_rng *r, bool chat)
{
    size_t at = 0;
    if (fuzz_percent(r, 30))
        at += (size_t)snprintf(out + at, size - at, "\"temperature\":0,\"seed\":1");
    else
        at += (size_t)snprintf(out + at, size - at, "\"temperature\":%s,\"seed\":%u%s",
                               fuzz_percent(r, 50) ? "1" : "0.8", (unsigned)fuzz_range(r, 1, 1000),
                               fuzz_percent(r, 30) ? ",\"top_p\":0.9" : "");
    if (fuzz_percent(r, 50))
        at += (size_t)snprintf(out + at, size - at, "%s",
                               chat ? ",\"logprobs\":true,\"top_logprobs\":2" : ",\"logprobs\":1");
    if (fuzz_percent(r, 15))
        snprintf(out + at, size - at, ",\"stop\":[\"e\",\"goat\"]");
}

void fuzz_cases_make(struct fuzz_cases *c)
{
    struct fuzz_rng r = { 77 };
    memset(c, 0, sizeof *c);
    for (c->n = 0; c->n < FUZZ_CASES; c->n++) {
        struct fuzz_case *k = &c->list[c->n];
        static const uint32_t outputs[] = { 1, 2, 7, 12, 20, 33 };
        char text[2000], sampling[200], n_field[24] = "", prompts[2100];
        bool chat = fuzz_percent(&r, 60);
        uint32_t n_words = (uint32_t)(fuzz_percent(&r, 25) ? fuzz_range(&r, 60, 110) : fuzz_range(&r, 5, 40));
        uint32_t max = outputs[fuzz_next(&r) % 6], n = fuzz_percent(&r, 25) ? 2 : 1;
        text_make(text, sizeof text, (uint32_t)fuzz_range(&r, 1, 6), n_words, c->n);
        sampling_make(sampling, sizeof sampling, &r, chat);
        k->stream = fuzz_percent(&r, 60);
        k->path = chat ? "/v1/chat/completions" : "/v1/completions";
        k->legs = n;
        k->tokens = n_words * 2 + 24 + max;
        if (n > 1)
            snprintf(n_field, sizeof n_field, ",\"n\":%u", (unsigned)n);
        if (chat) {
            snprintf(prompts, sizeof prompts, "\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]", text);
        } else if (fuzz_percent(&r, 25)) {
            k->legs *= 2;
            snprintf(prompts, sizeof prompts, "\"prompt\":[\"%s\",\"a %s\"]", text, words[c->n % 12]);
        } else if (fuzz_percent(&r, 25)) {
            snprintf(prompts, sizeof prompts, "\"prompt\":[1,300,301,302,%u,304,305,306,307,308,309,310]",
                     300 + c->n);
        } else {
            snprintf(prompts, sizeof prompts, "\"prompt\":\"%s\"", text);
        }
        snprintf(k->body, sizeof k->body, "{\"model\":\"tiny\",\"max_tokens\":%u,%s%s%s,%s}", (unsigned)max,
                 sampling, n_field, k->stream ? ",\"stream\":true" : "", prompts);
    }
}

/* ---- what is compared ----------------------------------------------------------- */

struct text {
    char *p;
    size_t n, cap;
};

static void text_add(struct text *t, const char *p, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        t->cap = (t->n + n + 1) * 2;
        t->p = realloc(t->p, t->cap);
        if (t->p == NULL)
            abort();
    }
    memcpy(t->p + t->n, p, n);
    t->n += n;
    t->p[t->n] = '\0';
}

/* One event's choice goes to the text of its index. */
static void event_take(const char *event, size_t n, struct text *per, bool *has_error, bool *has_finish)
{
    const char *choices = memmem(event, n, "\"choices\":[", 11);
    if (choices == NULL) {
        if (memmem(event, n, "\"error\"", 7) != NULL)
            *has_error = true;
        return;
    }
    choices += 11;
    size_t left = n - (size_t)(choices - event);
    if (left < 11 || memcmp(choices, "{\"index\":", 9) != 0)
        return; /* usage */
    uint32_t index = (uint32_t)(choices[9] - '0');
    const char *usage = memmem(choices, left, ",\"usage\":", 9);
    if (usage != NULL)
        left = (size_t)(usage - choices);
    if (memmem(choices, left, "\"finish_reason\":\"", 17) != NULL)
        *has_finish = true;
    text_add(&per[index % 8], choices, left);
    text_add(&per[index % 8], "\n", 1);
}

char *fuzz_normal(const char *body, size_t n, bool stream, bool *has_error, bool *has_done,
                  bool *has_finish, size_t *out_n)
{
    struct text per[8], all;
    memset(per, 0, sizeof per);
    memset(&all, 0, sizeof all);
    *has_error = *has_done = *has_finish = false;
    text_add(&all, "", 0);
    if (!stream) {
        const char *choices = memmem(body, n, "\"choices\":", 10);
        const char *usage = memmem(body, n, "\"usage\":", 8);
        if (choices != NULL && usage != NULL && usage > choices) {
            text_add(&all, choices, (size_t)(usage - choices));
            *has_finish = true;
        }
        *has_error = n > 9 && memcmp(body, "{\"error\":", 9) == 0;
        *out_n = all.n;
        return all.p;
    }
    for (size_t at = 0; at < n;) {
        const char *end = memmem(body + at, n - at, "\n\n", 2);
        size_t len = end != NULL ? (size_t)(end - body) - at : n - at;
        if (end == NULL)
            break; /* the rest was cut off */
        if (len == 12 && memcmp(body + at, "data: [DONE]", 12) == 0)
            *has_done = true;
        else
            event_take(body + at, len, per, has_error, has_finish);
        at += len + 2;
    }
    for (int i = 0; i < 8; i++) {
        if (per[i].p == NULL)
            continue;
        char head[16];
        text_add(&all, head, (size_t)snprintf(head, sizeof head, "#%d\n", i));
        text_add(&all, per[i].p, per[i].n);
        free(per[i].p);
    }
    *out_n = all.n;
    return all.p;
}
