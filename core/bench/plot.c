/* SPDX-License-Identifier: Apache-2.0 */
/* SVG plots: a frame, five ticks an axis, one polyline a series. */
#include "bench/plot.h"

#include <math.h>
#include <stdio.h>

#include "base/str.h"

enum { WIDTH = 640, HEIGHT = 300, LEFT = 64, RIGHT = 12, TOP = 28, BOTTOM = 44, TICKS = 5, DOTS = 32 };

static const char *const colors[PD_BENCH_PLOT_LINES] = {
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f",
};

void pd_bench_html_text(struct pd_buf *out, struct pd_str text)
{
    for (size_t i = 0; i < text.n; i++) {
        switch (text.p[i]) {
        case '<': pd_buf_append_cstr(out, "&lt;"); break;
        case '>': pd_buf_append_cstr(out, "&gt;"); break;
        case '&': pd_buf_append_cstr(out, "&amp;"); break;
        case '"': pd_buf_append_cstr(out, "&quot;"); break;
        default: pd_buf_append_char(out, text.p[i]); break;
        }
    }
}

struct scale {
    double x0, x1, y1;          /* x0, x1: logarithms when is_log */
    bool is_log;
};

static bool usable(const struct pd_bench_plot *p, const struct pd_bench_line *l, size_t i)
{
    return isfinite(l->x[i]) && isfinite(l->y[i]) && (!p->is_x_log || l->x[i] > 0);
}

static bool scale_make(const struct pd_bench_plot *p, struct scale *s)
{
    bool has_any = false;
    *s = (struct scale){ .y1 = p->y_max, .is_log = p->is_x_log };
    for (size_t k = 0; k < p->n_lines; k++)
        for (size_t i = 0; i < p->lines[k].n; i++) {
            const struct pd_bench_line *l = &p->lines[k];
            if (!usable(p, l, i))
                continue;
            double x = p->is_x_log ? log10(l->x[i]) : l->x[i];
            s->x0 = !has_any || x < s->x0 ? x : s->x0;
            s->x1 = !has_any || x > s->x1 ? x : s->x1;
            if (p->y_max <= 0 && l->y[i] > s->y1)
                s->y1 = l->y[i];
            has_any = true;
        }
    if (s->x1 <= s->x0)
        s->x1 = s->x0 + 1;
    if (s->y1 <= 0)
        s->y1 = 1;
    return has_any;
}

static double at_x(const struct scale *s, double x)
{
    return LEFT + ((s->is_log ? log10(x) : x) - s->x0) / (s->x1 - s->x0) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const struct scale *s, double y)
{
    double part = y / s->y1;
    return HEIGHT - BOTTOM - (part > 1 ? 1 : part < 0 ? 0 : part) * (HEIGHT - TOP - BOTTOM);
}

static void put_text(struct pd_buf *out, double x, double y, const char *anchor, const char *text)
{
    pd_buf_appendf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    pd_bench_html_text(out, pd_str_from(text));
    pd_buf_append_cstr(out, "</text>\n");
}

/* Three digits, and k, M or G. */
static const char *short_number(double v, char *text, size_t size)
{
    static const struct {
        double from;
        const char *end;
    } units[] = { { 1e9, "G" }, { 1e6, "M" }, { 1e4, "k" } };
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (fabs(v) >= units[i].from) {
            double scaled = v / (units[i].from == 1e4 ? 1e3 : units[i].from);
            snprintf(text, size, fabs(scaled) >= 100 ? "%.0f%s" : "%.3g%s", scaled, units[i].end);
            return text;
        }
    snprintf(text, size, fabs(v) >= 1000 ? "%.0f" : "%.3g", v);
    return text;
}

static void put_axes(const struct pd_bench_plot *p, const struct scale *s, struct pd_buf *out)
{
    char text[32];
    pd_buf_appendf(out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#999\"/>\n", LEFT, TOP,
                   WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    for (int i = 0; i <= TICKS; i++) {
        double y = s->y1 * i / TICKS, x = s->x0 + (s->x1 - s->x0) * i / TICKS;
        double px = LEFT + (double)i / TICKS * (WIDTH - LEFT - RIGHT);
        put_text(out, LEFT - 6, at_y(s, y) + 4, "end", short_number(y, text, sizeof text));
        put_text(out, i == TICKS ? WIDTH - RIGHT : px, HEIGHT - BOTTOM + 16, i == TICKS ? "end" : "middle",
                 short_number(s->is_log ? pow(10, x) : x, text, sizeof text));
        pd_buf_appendf(out, "<path d=\"M%d %.1fH%d\" stroke=\"#eee\"/>\n", LEFT, at_y(s, y), WIDTH - RIGHT);
    }
    put_text(out, LEFT, 16, "start", p->title);
    put_text(out, WIDTH - RIGHT, HEIGHT - 8, "end", p->x_label);
    put_text(out, 4, HEIGHT - 8, "start", p->y_label);
}

pd_status pd_bench_plot_svg(const struct pd_bench_plot *p, struct pd_buf *out)
{
    struct scale s;
    if (!scale_make(p, &s))
        return out->status;
    pd_buf_appendf(out, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n", WIDTH, HEIGHT, WIDTH, HEIGHT);
    put_axes(p, &s, out);
    for (size_t k = 0; k < p->n_lines && k < PD_BENCH_PLOT_LINES; k++) {
        const struct pd_bench_line *l = &p->lines[k];
        pd_buf_appendf(out, "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"%s\" points=\"", colors[k]);
        for (size_t i = 0; i < l->n; i++)
            if (usable(p, l, i))
                pd_buf_appendf(out, "%.1f,%.1f ", at_x(&s, l->x[i]), at_y(&s, l->y[i]));
        pd_buf_append_cstr(out, "\"/>\n");
        for (size_t i = 0; i < l->n && l->n <= DOTS; i++)
            if (usable(p, l, i))
                pd_buf_appendf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>", at_x(&s, l->x[i]),
                               at_y(&s, l->y[i]), colors[k]);
    }
    for (size_t k = 0; k < p->n_lines && k < PD_BENCH_PLOT_LINES; k++) {    /* above all lines */
        const struct pd_bench_line *l = &p->lines[k];
        pd_buf_appendf(out, "<g fill=\"%s\">", colors[k]);
        put_text(out, WIDTH - RIGHT - 6, TOP + 16 + 15 * (double)k, "end", l->name);
        pd_buf_append_cstr(out, "</g>\n");
    }
    pd_buf_append_cstr(out, "</svg>\n");
    return out->status;
}

pd_status pd_bench_bars_svg(const struct pd_bench_bars *b, struct pd_buf *out)
{
    struct scale s = { .y1 = 0 };
    double group = (double)(WIDTH - LEFT - RIGHT) / (double)(b->n_groups > 0 ? b->n_groups : 1);
    double bar = group * 0.8 / (double)b->n_series;
    char text[32];
    for (size_t i = 0; i < b->n_groups * b->n_series; i++)
        if (isfinite(b->values[i]) && b->values[i] > s.y1)
            s.y1 = b->values[i];
    if (s.y1 <= 0)
        return out->status;
    s.y1 *= 1.1;                /* room for the numbers */
    pd_buf_appendf(out, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n", WIDTH, HEIGHT, WIDTH, HEIGHT);
    for (int i = 0; i <= TICKS; i++) {
        double y = s.y1 * i / TICKS;
        put_text(out, LEFT - 6, at_y(&s, y) + 4, "end", short_number(y, text, sizeof text));
        pd_buf_appendf(out, "<path d=\"M%d %.1fH%d\" stroke=\"#eee\"/>\n", LEFT, at_y(&s, y), WIDTH - RIGHT);
    }
    put_text(out, LEFT, 16, "start", b->title);
    put_text(out, 4, HEIGHT - 8, "start", b->y_label);
    for (size_t i = 0; i < b->n_groups; i++) {
        double left = LEFT + group * (double)i;
        /* Names of neighbours stand on two lines. */
        put_text(out, left + group / 2, HEIGHT - BOTTOM + 14 + (i % 2) * 12, "middle", b->groups[i]);
        for (size_t k = 0; k < b->n_series; k++) {
            double v = b->values[i * b->n_series + k], x = left + group * 0.1 + bar * (double)k;
            if (!isfinite(v))
                continue;
            pd_buf_appendf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, at_y(&s, v),
                           bar * 0.9, at_y(&s, 0) - at_y(&s, v), colors[k % PD_BENCH_PLOT_LINES]);
            if (bar < 24 && fabs(v) < 1)    /* a narrow bar has room for little */
                snprintf(text, sizeof text, "%.1g", v);
            else
                short_number(v, text, sizeof text);
            put_text(out, x + bar * 0.45, at_y(&s, v) - 3, "middle", text);
        }
    }
    for (size_t k = 0; k < b->n_series; k++) {
        pd_buf_appendf(out, "<g fill=\"%s\">", colors[k % PD_BENCH_PLOT_LINES]);
        put_text(out, WIDTH - RIGHT - 70 * (double)(b->n_series - 1 - k), 16, "end", b->series[k]);
        pd_buf_append_cstr(out, "</g>\n");
    }
    pd_buf_append_cstr(out, "</svg>\n");
    return out->status;
}
