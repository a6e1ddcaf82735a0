/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench transport: figures for people and for programs. */
#include "main/pdbench_source.h"

#include <stdio.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/units.h"
#include "main/pdbench.h"

static const char *const way_names[PDBENCH_WAYS] = { "module", "memcpy", "process_vm_readv", "stream" };


static double gb_per_s(const struct pdbench_source *s, double seconds)
{
    return seconds > 0 ? (double)s->side.bytes / 1e9 / seconds : 0;
}

void pdbench_source_table(struct pdbench_source *s, const struct pdbench_result *r, uint32_t n)
{
    char text[PD_UNITS_TEXT];
    printf("%s of memory, median of %llu rounds, in turns; GB/s\n", pd_units_format_bytes(s->side.bytes, text),
           (unsigned long long)s->rounds);
    printf("%-9s %-10s %8s %8s %8s %8s %9s %9s %9s %9s\n", "segments", "order", "module", "memcpy", "readv", "stream",
           "/ memcpy", "ns/segm.", "cpu here", "there");
    for (uint32_t i = 0; i < n; i++) {
        printf("%-9s %-10s", pd_units_format_bytes(r[i].segment, text), r[i].is_scattered ? "scattered" : "in order");
        for (int way = 0; way < PDBENCH_WAYS; way++)
            if (r[i].seconds[way] > 0)
                printf(" %8.2f", gb_per_s(s, r[i].seconds[way]));
            else
                printf(" %8s", "-");
        printf(" %9.2f %9.0f %8.0f%% %8.0f%%\n", r[i].seconds[PDBENCH_MEMCPY] / r[i].seconds[PDBENCH_MODULE],
               r[i].seconds[PDBENCH_MODULE] * 1e9 / ((double)s->side.bytes / (double)r[i].segment),
               100 * r[i].cpu_here / r[i].seconds[PDBENCH_MODULE], 100 * r[i].cpu_there / r[i].seconds[PDBENCH_MODULE]);
    }
}

bool pdbench_source_json(struct pdbench_source *s, const struct pdbench_result *r, uint32_t n)
{
    struct pd_buf out;
    struct pd_json_writer w;
    pd_buf_init(&out, 1u << 20);
    pd_json_writer_init(&w, &out);
    pd_json_begin_object(&w, NULL);
    pd_json_add_cstr(&w, "kind", "transport");
    pd_json_begin_object(&w, "conditions");
    pdbench_conditions(s->side.loop, &w);
    pd_json_add_cstr(&w, "module", s->side.module.file);
    pd_json_add_u64(&w, "bytes", s->side.bytes);
    pd_json_add_u64(&w, "rounds", s->rounds);
    pd_json_end(&w);
    pd_json_begin_array(&w, "rows");
    for (uint32_t i = 0; i < n; i++) {
        pd_json_begin_object(&w, NULL);
        pd_json_add_u64(&w, "segment", r[i].segment);
        pd_json_add_bool(&w, "scattered", r[i].is_scattered);
        for (int way = 0; way < PDBENCH_WAYS; way++)
            if (r[i].seconds[way] > 0)
                pd_json_add_double(&w, way_names[way], gb_per_s(s, r[i].seconds[way]));
            else
                pd_json_add_null(&w, way_names[way]);
        pd_json_add_double(&w, "of_memcpy", r[i].seconds[PDBENCH_MEMCPY] / r[i].seconds[PDBENCH_MODULE]);
        pd_json_add_double(&w, "segments_per_second",
                           (double)s->side.bytes / (double)r[i].segment / r[i].seconds[PDBENCH_MODULE]);
        pd_json_add_double(&w, "memcpy_cpu_seconds_per_gb", r[i].cpu_copy * 1e9 / (double)s->side.bytes);
        pd_json_add_double(&w, "cpu_seconds_per_gb_here", r[i].cpu_here * 1e9 / (double)s->side.bytes);
        pd_json_add_double(&w, "cpu_seconds_per_gb_there", r[i].cpu_there * 1e9 / (double)s->side.bytes);
        pd_json_end(&w);
    }
    pd_json_end(&w);
    pd_json_end(&w);
    pd_buf_append_char(&out, '\n');
    bool is_good = pdbench_print("transport", &out);
    pd_buf_fini(&out);
    return is_good;
}
