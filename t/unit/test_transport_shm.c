/* SPDX-License-Identifier: Apache-2.0 */
/* shm over the real loop, and what it refuses. */
#include "transport_uv.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm.h"

static char directory[] = "/tmp/pdplane-test-XXXXXX";

static void run_case(void (*fn)(struct tr_env *e))
{
    struct pd_shm_conf conf = { .directory = directory, .queue = 1024, .windows = 4096,
                                .connections = 256, .timeout = PD_SEC };
    struct pd_shm_conf tiny = conf;
    struct tr_env e;

    tiny.queue = 4;
    uv_env(&e);
    e.ops = (const struct pd_transport_ops *)uv_unit("modules/transport/shm/.libs/shm.so")->ops;
    e.conf = &conf;
    e.conf_tiny = &tiny;
    fn(&e);
    uv_env_end(&e);
}

#define X(name)                                                                \
    static void test_##name(void **state)                                      \
    {                                                                          \
        (void)state;                                                           \
        run_case(tr_case_##name);                                              \
    }
TRANSPORT_CASES(X)
TRANSPORT_KILL_CASES(X)
#undef X

/* A file that could shrink under our feet is not taken. */
static void unsealed_case(struct tr_env *e)
{
    struct tr_node n;
    struct pd_memory_desc desc = { .size = sizeof(desc) };
    struct pd_transport_memory *m = NULL;
    struct pd_err err;
    int fd = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    tr_node_open(e, &n, e->la, 0xa1, 1, 1 << 20, e->conf);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    desc.base = n.base;
    desc.bytes = 1 << 20;
    desc.fd = -1;
    assert_int_equal(e->ops->memory_add(n.tp, &desc, &m, &err), PD_EINVAL);
    desc.fd = fd;
    assert_int_equal(e->ops->memory_add(n.tp, &desc, &m, &err), PD_EPERM);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(e->ops->memory_add(n.tp, &desc, &m, &err), PD_EPERM);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
    assert_int_equal(e->ops->memory_add(n.tp, &desc, &m, &err), PD_OK);
    assert_int_equal(e->ops->memory_remove(m), PD_OK);
    desc.bytes = (1 << 20) + 1;
    assert_int_equal(e->ops->memory_add(n.tp, &desc, &m, &err), PD_EINVAL);
    close(fd);
    tr_node_close(e, &n);
}

static void unsealed(void **state)
{
    (void)state;
    run_case(unsealed_case);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(test_##name),
        TRANSPORT_CASES(X) TRANSPORT_KILL_CASES(X)
#undef X
        cmocka_unit_test(unsealed),
    };
    const char *pattern = getenv("PD_TEST");
    char command[64];
    int failed;

    if (mkdtemp(directory) == NULL)
        return 99;
    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    /* Killed processes leave their sockets. */
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command) != 0 ? 99 : failed;
}
