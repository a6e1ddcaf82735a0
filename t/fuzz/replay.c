/* SPDX-License-Identifier: Apache-2.0 */
/* Main of a fuzz target without libFuzzer: gives it each file that is named on
 * the command line, and the files of each folder, once. */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

bool fuzz_thorough = true;

static unsigned long count;

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    size_t cap = 1 << 22;
    uint8_t *p = malloc(cap);
    if (f == NULL || p == NULL) {
        fprintf(stderr, "%s: cannot be read\n", path);
        free(p);
        if (f != NULL)
            fclose(f);
        return 1;
    }
    size_t n = fread(p, 1, cap, f);
    fclose(f);
    uint8_t *exact = realloc(p, n + (n == 0));
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    count++;
    return 0;
}

static int run_folder(const char *path)
{
    struct dirent **names;
    int bad = 0, n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            bad |= run_file(file);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return bad | (n < 0);
}

int main(int argc, char **argv)
{
    int bad = 0;
    for (int i = 1; i < argc; i++) {
        struct stat sb;
        bad |= stat(argv[i], &sb) == 0 && S_ISDIR(sb.st_mode) ? run_folder(argv[i]) : run_file(argv[i]);
    }
    printf("%lu inputs\n", count);
    return bad;
}
