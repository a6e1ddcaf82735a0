/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration texts against the rows of a node without modules: a text that
 * is accepted can be dumped, and the dump gives the same configuration. */
#include "fuzz.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "node/sections.h"

static const char *env(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "HOST") == 0 ? "h1" : NULL;
}

static struct pd_conf *read_text(struct pd_str text, struct pd_conf_report *report)
{
    static const struct pd_conf_source source = { .env = env, .prefix = "/nowhere" };
    struct pd_conf *conf = NULL;
    if (pd_conf_open_text("/nowhere/t.conf", text, &source, report, &conf) != PD_OK)
        return NULL;
    if (pd_conf_fill(conf, pd_node_sections(), sizeof(struct pd_node_conf), NULL, report) != PD_OK) {
        pd_conf_put(conf);
        return NULL;
    }
    return conf;
}

/* Files of the machine that runs this must not matter. */
static bool names_files(struct pd_str text)
{
    return pd_str_find(text, PD_STR("include")) != PD_STR_NPOS ||
           pd_str_find(text, PD_STR("_file")) != PD_STR_NPOS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    struct pd_conf_report report;
    struct pd_str text;
    char *p = fuzz_rest(&in, &text.n);
    text.p = p;
    if (names_files(text) && memchr(text.p, '/', text.n) != NULL) {
        fuzz_back(p, text.n);
        return 0;
    }
    pd_conf_report_init(&report);
    struct pd_conf *conf = read_text(text, &report);
    FUZZ_CHECK((conf != NULL) == pd_conf_report_ok(&report) && !report.out_of_memory);
    for (uint32_t i = 0; i < report.n_errors; i++)
        FUZZ_CHECK(report.errors[i].text[0] != '\0');
    if (conf != NULL) {
        char *dump = NULL;
        size_t n = 0;
        FILE *f = open_memstream(&dump, &n);
        FUZZ_CHECK(f != NULL && pd_conf_dump(conf, f) == PD_OK);
        fclose(f);
        if (memmem(dump, n, "${", 2) == NULL) {
            struct pd_conf_report second;
            pd_conf_report_init(&second);
            struct pd_conf *again = read_text((struct pd_str){ dump, n }, &second);
            if (again == NULL) {
                fprintf(stderr, "%.*s\n", (int)n, dump);
                pd_conf_report_print(&second, stderr);
            }
            FUZZ_CHECK(again != NULL);
            FUZZ_CHECK(pd_conf_equal(pd_node_sections(), pd_conf_root(conf), pd_conf_root(again)));
            pd_conf_put(again);
            pd_conf_report_fini(&second);
        }
        free(dump);
        pd_conf_put(conf);
    }
    pd_conf_report_fini(&report);
    fuzz_back(p, text.n);
    return 0;
}
