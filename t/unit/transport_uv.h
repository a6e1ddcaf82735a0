/* SPDX-License-Identifier: Apache-2.0 */
/* Running the transport cases over the real loop, with the module as it is
 * built.  Included once by each test program. */
#ifndef PD_T_TRANSPORT_UV_H
#define PD_T_TRANSPORT_UV_H

#include "transport_cases.h"

#include <dlfcn.h>
#include <pdplane/module.h>

#include "loop/uv.h"

static bool uv_run_loop(struct pd_loop *loop, bool (*cond)(void *arg), void *arg, pd_time limit)
{
    pd_time end = pd_loop_clock(loop) + limit;

    while (!cond(arg)) {
        pd_time now = pd_loop_clock(loop);
        if (now >= end)
            return false;
        assert_int_equal(pd_loop_uv_turn(loop, end - now < 10 * PD_MS ? end - now : 10 * PD_MS),
                         PD_OK);
    }
    return true;
}

static bool uv_run(struct tr_env *e, bool (*cond)(void *arg), void *arg)
{
    return uv_run_loop(e->la, cond, arg, 30 * PD_SEC);
}

static bool uv_no(void *arg)
{
    (void)arg;
    return false;
}

static void uv_pass(struct tr_env *e, pd_time ns)
{
    /* One turn at least, however slow this machine is. */
    assert_int_equal(pd_loop_uv_turn(e->la, 0), PD_OK);
    uv_run_loop(e->la, uv_no, NULL, ns);
}

static struct pd_loop *uv_new_loop(void)
{
    struct pd_loop *loop = NULL;

    assert_int_equal(pd_loop_uv_create(NULL, &loop), PD_OK);
    return loop;
}

/* The unit of a module in the build tree. */
static inline const struct pd_unit *uv_unit(const char *file)
{
    const char *dir = getenv("PD_BUILDDIR");
    const struct pd_module *module;
    char path[1024];
    void *dl;

    snprintf(path, sizeof(path), "%s/%s", dir == NULL ? "." : dir, file);
    dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (dl == NULL)
        print_message("%s\n", dlerror());
    assert_non_null(dl);
    module = dlsym(dl, "pd_module");
    assert_non_null(module);
    assert_int_equal(module->magic, PD_MODULE_MAGIC);
    return &module->units[0];
}

static inline void uv_env(struct tr_env *e)
{
    memset(e, 0, sizeof(*e));
    e->la = e->lb = uv_new_loop();
    e->scale = 1;
    e->run = uv_run;
    e->pass = uv_pass;
    e->new_loop = uv_new_loop;
    e->run_loop = uv_run_loop;
}

static inline void uv_env_end(struct tr_env *e)
{
    char names[512] = "";
    pd_status st = pd_loop_destroy(e->la, names, sizeof(names));

    if (st != PD_OK)
        print_message("open: %s\n", names);
    assert_int_equal(st, PD_OK);
}

#endif
