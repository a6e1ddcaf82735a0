/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of all sections of the core are as sane as those of modules must be. */
#include "unit.h"

#include "mod/mod.h"
#include "node/sections.h"

static void test_rows(void **state)
{
    (void)state;
    struct pd_err err = { 0 };
    pd_status st = pd_conf_rows_check(pd_node_sections(), sizeof(struct pd_node_conf), &err);
    if (st != PD_OK)
        fprintf(stderr, "%s\n", err.text);
    assert_int_equal(st, PD_OK);
}

/* A node of a simulation: text in memory, no modules. */
static void test_read(void **state)
{
    (void)state;
    static const char *const nowhere[] = { "/nonexistent", NULL };
    struct pd_mods_params params = { .path = nowhere };
    struct pd_str text = PD_STR("node = { name = \"n1\"; };\n"
                                "listen = ( { address = \"sim:1\"; api = \"peer\"; } );\n");
    struct pd_conf_report report;
    struct pd_mods *mods;
    struct pd_conf *conf = NULL;
    assert_int_equal(pd_mods_create(&params, &mods), PD_OK);
    pd_conf_report_init(&report);
    assert_int_equal(pd_node_conf_read("n1.conf", &text, NULL, mods, &report, &conf), PD_OK);
    const struct pd_node_conf *c = pd_conf_root(conf);
    assert_string_equal(c->node.name, "n1");
    assert_int_equal(c->listen.count, 1);
    const struct pd_node_listen_conf *l = PD_CONF_ITEM(&c->listen, struct pd_node_listen_conf, 0);
    assert_int_equal(l->api, PD_LISTEN_PEER);
    assert_int_equal(l->place.line, 2);
    assert_int_equal(c->drain, 30 * PD_SEC);
    pd_conf_put(conf);

    text = PD_STR("load = [ \"x\" ];\n");
    assert_int_equal(pd_node_conf_read("n1.conf", &text, NULL, mods, &report, &conf), PD_EINVAL);
    assert_int_equal(report.n_errors, 1);
    pd_conf_report_fini(&report);
    pd_mods_destroy(mods);
}

/* Every kind has a name, and its required operations lie inside of its ops. */
static void test_kinds(void **state)
{
    (void)state;
    char text[64];
    for (const struct pd_kind_spec *k = pd_kinds(); k->kind != 0; k++) {
        assert_string_not_equal(pd_kind_name(k->kind), "unknown");
        assert_true(k->version_min <= k->version_max && k->ops_min <= k->ops_size);
        for (uint32_t i = 0; i < k->n_required; i++)
            assert_true(k->required[i].offset + sizeof(void *) <= k->ops_min);
    }
    assert_string_equal(pd_kind_name(0), "unknown");
    assert_string_equal(pd_kinds_text(PD_KIND_BIT(PD_KIND_SCORER) | PD_KIND_BIT(PD_KIND_PICKER), text, sizeof text),
                        "scorer or picker");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_rows),
    cmocka_unit_test(test_read),
    cmocka_unit_test(test_kinds),
};

PD_UNIT_MAIN(tests)
