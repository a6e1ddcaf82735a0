/* SPDX-License-Identifier: Apache-2.0 */
/* Engines and the sequences that cases run on them. */
#ifndef PD_T_CONFORM_ENGINE_JOB_H
#define PD_T_CONFORM_ENGINE_JOB_H

#include "conform/conform.h"

enum { MAX_PROMPT = 512, MAX_OUT = 64, MAX_PIECE = 4096, BENCH_TEXTS = 4 };

extern const char *const bench_texts[BENCH_TEXTS];

struct bench {
    struct cf_world w;
    struct cf_inst i;
    const struct pd_engine_ops *ops;
    struct pd_engine_info info;
    uint32_t inside;                /* ops that are running now */
};

/* One sequence.  Hooks run at the end of the event; they are set once it is open. */
struct job {
    struct bench *b;
    struct pd_seq *seq;
    int32_t prompt[MAX_PROMPT], out[MAX_OUT];
    uint32_t n_prompt, n_out, want, upto, computed, reason, close_at;
    void (*on_token)(struct job *j), (*on_finish)(struct job *j);
};

void bench_open(struct bench *b, const struct cf_unit *u);
/* Another instance in the place of one that was destroyed. */
void bench_start(struct bench *b, uint32_t number);
/* Everything must be given back. */
void bench_close(struct bench *b);
struct pd_engine_load bench_load(struct bench *b);
void bench_blocks_are_back(struct bench *b);
uint32_t bench_encode(struct bench *b, const char *text, int32_t *ids, uint32_t cap);

/* What a job is told. */
extern const struct pd_seq_events bench_events;
/* prompt, n_prompt and want are set. */
pd_status job_try(struct bench *b, struct job *j);
void job_open(struct bench *b, struct job *j, const char *text, uint32_t want);
void job_run(struct job *j, uint32_t mode, uint32_t upto, const struct pd_token *first);
bool job_over(void *arg);
void job_wait(struct job *j);
void job_close(struct job *j);
/* From open to close. */
void job_do(struct bench *b, struct job *j, const char *text, uint32_t want);
void job_same_tokens(const struct job *a, const struct job *b, const char *when);

#endif
