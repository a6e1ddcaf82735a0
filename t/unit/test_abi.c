/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and offsets that modules were compiled with.  A number that changes here
 * is a change of the ABI: see the rules in doc/dev/abi before adapting it. */
#include "unit.h"

#include <pdplane/module.h>

#if UINTPTR_MAX == UINT64_MAX
#define SIZE(type, n) assert_int_equal(sizeof(struct type), n)
#define OFFSET(type, member, n) assert_int_equal(offsetof(struct type, member), n)
#else
#define SIZE(type, n) (void)sizeof(struct type)
#define OFFSET(type, member, n) (void)offsetof(struct type, member)
#endif

static void test_prefix(void **state)
{
    (void)state;
    assert_int_equal(offsetof(struct pd_module, magic), 0);
    assert_int_equal(offsetof(struct pd_module, abi_major), 4);
    assert_int_equal(offsetof(struct pd_module, abi_minor), 6);
    assert_int_equal(offsetof(struct pd_module, size), 8);
    assert_int_equal(offsetof(struct pd_module, flags), 12);
    assert_int_equal(offsetof(struct pd_module, name), 16);
    assert_int_equal(offsetof(struct pd_ops_head, version), 4);
}

static void test_module(void **state)
{
    (void)state;
    SIZE(pd_module, 72);
    OFFSET(pd_module, units, 40);
    OFFSET(pd_module, host, 48);
    OFFSET(pd_module, unload, 64);
    SIZE(pd_unit, 64);
    OFFSET(pd_unit, ops, 16);
    OFFSET(pd_unit, conf_size, 32);
    OFFSET(pd_unit, check, 56);
    SIZE(pd_instance_ctx, 72);
    OFFSET(pd_instance_ctx, host, 40);
}

static void test_conf(void **state)
{
    (void)state;
    SIZE(pd_option, 144);
    OFFSET(pd_option, def, 24);
    OFFSET(pd_option, min, 48);
    OFFSET(pd_option, names, 80);
    OFFSET(pd_option, kinds, 104);
    OFFSET(pd_option, reserved, 120);
    SIZE(pd_option_name, 16);
    SIZE(pd_conf_strings, 16);
    SIZE(pd_conf_list, 24);
    SIZE(pd_conf_place, 16);
    SIZE(pd_conf_unit, 48);
}

static void test_types(void **state)
{
    (void)state;
    SIZE(pd_str, 16);
    SIZE(pd_iov, 16);
    SIZE(pd_uuid, 16);
    SIZE(pd_node_id, 24);
    SIZE(pd_err, 1032);
    assert_int_equal(PD_EINTEGRITY, -18);
    assert_int_equal(PD_KIND_ADAPTER, 11);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_prefix),
    cmocka_unit_test(test_module),
    cmocka_unit_test(test_conf),
    cmocka_unit_test(test_types),
};

PD_UNIT_MAIN(tests)
