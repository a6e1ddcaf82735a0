/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and loading modules: folders with odd files in them, names and paths, what is
 * loaded already, and each allocation failing.  The modules are those of t/modules. */
#include "unit.h"

#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "mod/host.h"
#include "mod/mod.h"

static char dir[64], other[64], modules[PATH_MAX];

static void file_in(const char *folder, const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
}

static int setup(void **state)
{
    const char *build = getenv("PD_BUILDDIR");
    (void)state;
    snprintf(modules, sizeof modules, "%s/t/modules/.libs", build != NULL ? build : ".");
    strcpy(dir, "/tmp/pd-mods-XXXXXX");
    strcpy(other, "/tmp/pd-mods-XXXXXX");
    return mkdtemp(dir) == NULL || mkdtemp(other) == NULL;
}

static int teardown(void **state)
{
    char command[256];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s %s", dir, other);
    return system(command);
}

static struct pd_mods *mods_of(const char *a, const char *b)
{
    const char *path[] = { a, b, NULL };
    struct pd_mods_params params = { .host = pd_host_api_table(), .path = path, .kinds = pd_kinds() };
    struct pd_mods *mods = NULL;
    assert_int_equal(pd_mods_create(&params, &mods), PD_OK);
    return mods;
}

/* Loading fails with this in its message. */
static void refuses(struct pd_mods *mods, const char *name, const char *text)
{
    struct pd_err err = { 0 };
    assert_true(pd_mods_load(mods, name, &err) < 0);
    if (strstr(err.text, text) == NULL)
        fprintf(stderr, "# %s\n", err.text);
    assert_non_null(strstr(err.text, text));
}

static void test_folders(void **state)
{
    static const char *const names[] = { "b.so", "a.so", ".so", ".hidden.so", "x", "so", "a.so.bak", "c.txt" };
    const char *too_many[18];
    char name[64], small[2];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        file_in(dir, names[i]);
    file_in(other, "a.so");
    file_in(other, "c.so");
    struct pd_mods *mods = mods_of(dir, other);
    static const char *const want[] = { "a", "b", "c" };
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pd_mods_file_at(mods, i, name, sizeof name), PD_OK);
        assert_string_equal(name, want[i]);
    }
    assert_int_equal(pd_mods_file_at(mods, 3, name, sizeof name), PD_ENOENT);
    assert_int_equal(pd_mods_file_at(mods, 0, small, 1), PD_ELIMIT);
    assert_int_equal(pd_mods_locate(mods, "a", name, sizeof name), PD_OK);
    assert_true(strncmp(name, dir, strlen(dir)) == 0);      /* the first folder wins */
    assert_int_equal(pd_mods_locate(mods, "a", name, 8), PD_ENOENT);
    assert_int_equal(pd_mods_locate(mods, "/tmp", name, sizeof name), PD_OK);
    assert_int_equal(pd_mods_locate(mods, "/tmp", name, 3), PD_ENOENT);
    assert_int_equal(pd_mods_locate(mods, "/no/such", name, sizeof name), PD_ENOENT);
    refuses(mods, "zzzzzzzz", "cannot find module \"zzzzzzzz\" in ");
    refuses(mods, "aa", "(did you mean \"a\"?)");
    refuses(mods, "/no/such.so", "no such file");
    refuses(mods, "a", "cannot load module");               /* it is empty */
    assert_int_equal(chdir("/tmp"), 0);
    snprintf(name, sizeof name, "%s/a.so", dir + 5);
    refuses(mods, name, "a path to a module must be absolute");
    for (size_t i = 0; i < 17; i++)
        too_many[i] = dir;
    too_many[17] = NULL;
    assert_int_equal(pd_mods_set_path(mods, too_many, 17), PD_ELIMIT);
    assert_int_equal(pd_mods_file_at(mods, 0, name, sizeof name), PD_OK);       /* as it was */
    assert_int_equal(pd_mods_set_path(mods, too_many, 0), PD_OK);
    refuses(mods, "a", "cannot find module \"a\" in ");
    /* A folder that is not there has no modules. */
    const char *none[] = { "/no/such/folder" };
    assert_int_equal(pd_mods_set_path(mods, none, 1), PD_OK);
    assert_int_equal(pd_mods_file_at(mods, 0, name, sizeof name), PD_ENOENT);
    for (uint64_t n = 1; n < 3; n++) {
        pd_mem_fault_set(n);
        const char *two[] = { dir, other };
        assert_int_equal(pd_mods_set_path(mods, two, 2), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
    /* One that cannot be read is told, not left out. */
    const char *two[] = { dir, "/proc/self/fd/987654/x" };
    assert_int_equal(pd_mods_set_path(mods, two, 2), PD_OK);
    assert_int_equal(pd_mods_file_at(mods, 0, name, sizeof name), PD_OK);
    struct rlimit limit, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = limit;
    few.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(pd_mods_file_at(mods, 0, name, sizeof name), PD_ELIMIT);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (uint64_t n = 1; n < 4; n++) {
        pd_mem_fault_set(n);
        assert_int_equal(pd_mods_file_at(mods, 0, name, sizeof name), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
    pd_mods_destroy(mods);
    pd_mods_destroy(NULL);
    struct pd_mods_params params = { .path = too_many };
    assert_int_equal(pd_mods_create(&params, &mods), PD_ELIMIT);
    for (uint64_t n = 1; n < 3; n++) {
        struct pd_mods_params standard = { .host = pd_host_api_table() };
        pd_mem_fault_set(n);
        assert_int_equal(pd_mods_create(&standard, &mods), PD_ENOMEM);
        pd_mem_fault_set(0);
    }
}

static void test_load(void **state)
{
    struct pd_mods *mods = mods_of(modules, NULL);
    struct pd_err err = { 0 };
    char path[PATH_MAX + 16];
    (void)state;
    snprintf(path, sizeof path, "%s/good.so", modules);
    if (access(path, R_OK) != 0)
        skip();
    pd_mods_begin(mods);
    assert_int_equal(pd_mods_load(mods, "good", &err), PD_OK);
    assert_int_equal(pd_mods_load(mods, "good", &err), PD_OK);
    assert_int_equal(pd_mods_load(mods, path, &err), PD_OK);
    assert_non_null(pd_mods_at(mods, 0));
    assert_null(pd_mods_at(mods, 1));
    assert_string_equal(pd_mods_get(mods, "good")->name, "good");
    assert_null(pd_mods_get(mods, "other"));
    refuses(mods, "same_unit", "the picker \"good\" is provided by module \"good\" already");
    refuses(mods, "load_fails", "load_fails");
    refuses(mods, "no_symbol", "it does not export pd_module");
    /* The same name at another place. */
    char command[3 * PATH_MAX];
    snprintf(command, sizeof command, "cp '%s' %s/good.so && chmod 755 %s %s/good.so", path, dir, dir, dir);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/good.so", dir);
    refuses(mods, path, "the name \"good\" is taken by");
    /* What a configuration asks for: by name and alias, of a kind that it is, once it is wanted. */
    struct pd_conf_resolver r = pd_mods_resolver(mods);
    struct pd_conf_found found;
    const uint64_t pickers = PD_KIND_BIT(PD_KIND_PICKER);
    assert_int_equal(r.find(r.arg, pickers, "good-picker", &found, &err), PD_OK);
    assert_string_equal(found.name, "good");
    assert_true(r.each(r.arg, pickers, 0, &found));
    assert_false(r.each(r.arg, pickers, 1, &found));
    assert_int_equal(r.find(r.arg, pickers, "goood", &found, &err), PD_ENOENT);
    assert_non_null(strstr(err.text, "did you mean \"good\"?"));
    assert_int_equal(r.find(r.arg, PD_KIND_BIT(PD_KIND_ENGINE), "good", &found, &err), PD_ENOENT);
    assert_non_null(strstr(err.text, "\"good\" is no engine, module \"good\" provides it as picker"));
    assert_int_equal(r.find(r.arg, PD_KIND_BIT(PD_KIND_ENGINE), "probe", &found, &err), PD_ENOENT);
    assert_non_null(strstr(err.hint, "add \"probe\" to load"));
    assert_int_equal(r.find(r.arg, PD_KIND_BIT(PD_KIND_ENGINE), "a/b", &found, &err), PD_ENOENT);
    assert_non_null(strstr(err.hint, "pdplane -M"));
    pd_mods_begin(mods);                                    /* the next configuration does not load it */
    assert_int_equal(r.find(r.arg, pickers, "good", &found, &err), PD_ENOENT);
    assert_int_equal(r.find(r.arg, PD_KIND_BIT(PD_KIND_ENGINE), "good", &found, &err), PD_ENOENT);
    assert_false(r.each(r.arg, pickers, 0, &found));
    const struct pd_module *m = NULL;
    assert_int_equal(pd_mods_inspect(mods, "probe", &m, &err), PD_OK);
    assert_string_equal(m->name, "probe");
    pd_mods_destroy(mods);
    /* Each allocation of loading fails once: it is not loaded, or it is as it should be. */
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        mods = mods_of(modules, NULL);
        uint64_t before = pd_mem_count();
        pd_mem_fault_set(n);
        pd_status st = pd_mods_load(mods, "good", &err);
        pd_mem_fault_set(0);
        failed = pd_mem_count() - before >= n;
        assert_int_equal(st != PD_OK, pd_mods_at(mods, 0) == NULL);
        assert_true(st == PD_OK || (failed && err.text[0] != '\0'));
        pd_mods_destroy(mods);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_folders, setup, teardown),
    cmocka_unit_test_setup_teardown(test_load, setup, teardown),
};

PD_UNIT_MAIN(tests)
