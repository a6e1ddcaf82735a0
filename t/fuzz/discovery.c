/* SPDX-License-Identifier: Apache-2.0 */
/* What sources read: discovery files, EndpointSlices and pods; and the check of
 * the entries that they make of it.  What passes the check can be shown anywhere
 * and connects nowhere odd.
 *
 * Input: what it is (0 file, 1 EndpointSlice, 2 pod, 3 node), then its text. */
#include "fuzz.h"

#include "base/json.h"
#include "base/str.h"
#include "base/url.h"
#include "discovery/entry.h"
#include "file.h"
#include "kube.h"

static void is_shown(const char *s)
{
    for (; *s != '\0'; s++)
        FUZZ_CHECK((unsigned char)*s >= ' ' && (unsigned char)*s < 0x7f && *s != '"' && *s != '\\');
}

static void entry(const struct pd_discovery_entry *e)
{
    static const struct pd_entry_rules rules = { .role_label = "llm-d.ai/role", .model_label = "model" };
    struct pd_entry *out = NULL, *again = NULL;
    struct pd_url url;
    char why[160] = "";
    pd_status status = pd_entry_make(e, &rules, &out, why, sizeof why);
    if (status != PD_OK) {
        FUZZ_CHECK(status == PD_EINVAL && why[0] != '\0');
        return;
    }
    is_shown(out->name);
    is_shown(out->address);
    is_shown(out->type);
    for (uint32_t i = 0; i < out->n_models; i++)
        is_shown(out->models[i]);
    for (uint32_t i = 0; i < out->n_labels; i++) {
        is_shown(out->labels[i].key);
        is_shown(out->labels[i].value);
    }
    FUZZ_CHECK(out->what == PD_DISCOVERY_PEER ? pd_url_authority_parse(pd_str_from(out->address), &url) == PD_OK
                                              : pd_url_parse(pd_str_from(out->address), &url) == PD_OK);
    FUZZ_CHECK(url.port != 0 && out->weight <= PD_DISCOVERY_WEIGHT_MAX);
    FUZZ_CHECK(pd_entry_make(e, &rules, &again, why, sizeof why) == PD_OK && pd_entry_equal(out, again));
    pd_entry_put(again);
    pd_entry_put(out);
}

static void file(struct pd_str text)
{
    struct file_set set;
    char why[700] = "";
    pd_status status = file_set_read(pd_json_functions(), "f.json", text, &set, why, sizeof why);
    FUZZ_CHECK(status == PD_OK || (strncmp(why, "f.json:", 7) == 0 && strlen(why) > 8));
    for (uint32_t i = 0; status == PD_OK && i < set.n; i++)
        entry(&set.entries[i]);
    file_set_clear(&set);
}

/* ---- a cluster ------------------------------------------------------------------------ */

static uint32_t told;

static void on_mark(struct pd_discovery_sink *sink)
{
    (void)sink;
}

static pd_status on_put(struct pd_discovery_sink *sink, const struct pd_discovery_entry *e)
{
    (void)sink;
    entry(e);
    told++;
    return PD_OK;
}

static void object(struct pd_str text, uint32_t what)
{
    static const struct pd_discovery_sink_ops ops = { .size = sizeof ops, .begin = on_mark, .put = on_put,
                                                      .end = on_mark };
    static const char *const root[] = { "" };
    struct kube_conf conf = { .service = what == 1 ? "s" : NULL, .port = what == 1 ? NULL : "8000",
                              .is_peer = what == 3 };
    struct kube_objects set = { .json = pd_json_functions(), .conf = &conf };
    struct pd_discovery_sink sink = { &ops };
    struct pd_json_value v;
    if (pd_json_scan(text, NULL, root, 1, &v, NULL) != PD_OK)
        return;
    told = 0;
    pd_status status = kube_objects_put(&set, &v);
    if (status == PD_OK) {
        FUZZ_CHECK(set.n == 1 && kube_objects_put(&set, &v) == PD_OK && set.n == 1);
        kube_objects_tell(&set, &sink);
        kube_objects_mark(&set);
        kube_objects_remove(&set, &v);
        kube_objects_sweep(&set);
    }
    FUZZ_CHECK(set.n == 0 && told <= 1000);
    kube_objects_clear(&set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    uint32_t what = fuzz_u8(&in) & 3;
    size_t n;
    char *text = fuzz_rest(&in, &n);
    if (what == 0)
        file((struct pd_str){ text, n });
    else
        object((struct pd_str){ text, n }, what);
    fuzz_back(text, n);
    return 0;
}
