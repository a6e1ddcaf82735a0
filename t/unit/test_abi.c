/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and offsets that modules were compiled with.  A number that changes here
 * is a change of the ABI: see the rules in doc/dev/abi before adapting it.
 * All structs of the stable headers stand here, as of 1.0. */
#include "unit.h"

#include <pdplane/discovery.h>
#include <pdplane/codec.h>
#include <pdplane/engine.h>
#include <pdplane/exporter.h>
#include <pdplane/host.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>
#include <pdplane/module.h>
#include <pdplane/scheduler.h>
#include <pdplane/transport.h>

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
    SIZE(pd_unit, 72);
    OFFSET(pd_unit, ops, 16);
    OFFSET(pd_unit, conf_size, 32);
    OFFSET(pd_unit, check, 56);
    OFFSET(pd_unit, check_site, 64);
    SIZE(pd_unit_site, 16);
    OFFSET(pd_unit_site, has_unit, 8);
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

/* <pdplane/log.h> */
static void test_log(void **state)
{
    (void)state;
    SIZE(pd_log_site, 16);
    OFFSET(pd_log_site, file, 0);
    OFFSET(pd_log_site, line, 8);
    OFFSET(pd_log_site, level, 12);
    SIZE(pd_log_ops, 32);
    OFFSET(pd_log_ops, size, 0);
    OFFSET(pd_log_ops, emit, 8);
    OFFSET(pd_log_ops, child, 16);
    OFFSET(pd_log_ops, child_free, 24);
    SIZE(pd_log, 16);
    OFFSET(pd_log, ops, 0);
    OFFSET(pd_log, level, 8);
}

/* <pdplane/metric.h> */
static void test_metric(void **state)
{
    (void)state;
    SIZE(pd_metric_desc, 64);
    OFFSET(pd_metric_desc, size, 0);
    OFFSET(pd_metric_desc, name, 8);
    OFFSET(pd_metric_desc, help, 16);
    OFFSET(pd_metric_desc, labels, 24);
    OFFSET(pd_metric_desc, n_labels, 32);
    OFFSET(pd_metric_desc, bounds, 40);
    OFFSET(pd_metric_desc, n_bounds, 48);
    OFFSET(pd_metric_desc, max_children, 56);
    SIZE(pd_counter, 8);
    OFFSET(pd_counter, v, 0);
    SIZE(pd_gauge, 8);
    OFFSET(pd_gauge, bits, 0);
    SIZE(pd_histogram, 32);
    OFFSET(pd_histogram, bounds, 0);
    OFFSET(pd_histogram, n_bounds, 8);
    OFFSET(pd_histogram, sum_bits, 16);
    OFFSET(pd_histogram, counts, 24);
    SIZE(pd_metrics_ops, 48);
    OFFSET(pd_metrics_ops, size, 0);
    OFFSET(pd_metrics_ops, family, 8);
    OFFSET(pd_metrics_ops, child, 16);
    OFFSET(pd_metrics_ops, gauge_fn, 24);
    OFFSET(pd_metrics_ops, remove, 32);
    OFFSET(pd_metrics_ops, visit, 40);
    SIZE(pd_metric_view, 56);
    OFFSET(pd_metric_view, name, 8);
    OFFSET(pd_metric_view, help, 16);
    OFFSET(pd_metric_view, kind, 24);
    OFFSET(pd_metric_view, n_labels, 28);
    OFFSET(pd_metric_view, labels, 32);
    OFFSET(pd_metric_view, bounds, 40);
    OFFSET(pd_metric_view, n_bounds, 48);
    SIZE(pd_metric_sample, 40);
    OFFSET(pd_metric_sample, values, 8);
    OFFSET(pd_metric_sample, count, 16);
    OFFSET(pd_metric_sample, value, 24);
    OFFSET(pd_metric_sample, buckets, 32);
    SIZE(pd_metric_visitor, 24);
    OFFSET(pd_metric_visitor, family, 8);
    OFFSET(pd_metric_visitor, sample, 16);
    SIZE(pd_metrics, 8);
    OFFSET(pd_metrics, ops, 0);
}

/* <pdplane/loop.h> */
static void test_loop(void **state)
{
    (void)state;
    SIZE(pd_loop, 24);
    OFFSET(pd_loop, ops, 0);
    OFFSET(pd_loop, now, 8);
    OFFSET(pd_loop, name, 16);
    SIZE(pd_addr, 132);
    OFFSET(pd_addr, family, 0);
    OFFSET(pd_addr, port, 2);
    OFFSET(pd_addr, scope, 4);
    OFFSET(pd_addr, ip, 8);
    OFFSET(pd_addr, path, 24);
    SIZE(pd_loop_node, 56);
    OFFSET(pd_loop_node, due, 0);
    OFFSET(pd_loop_node, seq, 8);
    OFFSET(pd_loop_node, child, 16);
    OFFSET(pd_loop_node, next, 24);
    OFFSET(pd_loop_node, prev, 32);
    OFFSET(pd_loop_node, loop, 40);
    OFFSET(pd_loop_node, kind, 48);
    OFFSET(pd_loop_node, reserved, 52);
    SIZE(pd_timer, 88);
    OFFSET(pd_timer, loop, 0);
    OFFSET(pd_timer, cb, 8);
    OFFSET(pd_timer, arg, 16);
    OFFSET(pd_timer, name, 24);
    OFFSET(pd_timer, node, 32);
    SIZE(pd_task, 48);
    OFFSET(pd_task, cb, 0);
    OFFSET(pd_task, arg, 8);
    OFFSET(pd_task, name, 16);
    OFFSET(pd_task, next, 24);
    OFFSET(pd_task, prev, 32);
    OFFSET(pd_task, state, 40);
    OFFSET(pd_task, ran_in, 44);
    SIZE(pd_work, 128);
    OFFSET(pd_work, run, 0);
    OFFSET(pd_work, done, 8);
    OFFSET(pd_work, arg, 16);
    OFFSET(pd_work, name, 24);
    OFFSET(pd_work, sim_cost_ns, 32);
    OFFSET(pd_work, queue, 40);
    OFFSET(pd_work, next, 48);
    OFFSET(pd_work, prev, 56);
    OFFSET(pd_work, node, 64);
    OFFSET(pd_work, state, 120);
    OFFSET(pd_work, reserved, 124);
    SIZE(pd_workq_opts, 40);
    OFFSET(pd_workq_opts, size, 0);
    OFFSET(pd_workq_opts, name, 8);
    OFFSET(pd_workq_opts, threads, 16);
    OFFSET(pd_workq_opts, limit, 20);
    OFFSET(pd_workq_opts, on_thread, 24);
    OFFSET(pd_workq_opts, arg, 32);
    SIZE(pd_stream_events, 48);
    OFFSET(pd_stream_events, name, 0);
    OFFSET(pd_stream_events, on_connected, 8);
    OFFSET(pd_stream_events, on_readable, 16);
    OFFSET(pd_stream_events, on_writable, 24);
    OFFSET(pd_stream_events, on_hangup, 32);
    OFFSET(pd_stream_events, on_closed, 40);
    SIZE(pd_stream, 16);
    OFFSET(pd_stream, ops, 0);
    OFFSET(pd_stream, loop, 8);
    SIZE(pd_stream_ops, 120);
    OFFSET(pd_stream_ops, size, 0);
    OFFSET(pd_stream_ops, readv, 8);
    OFFSET(pd_stream_ops, writev, 16);
    OFFSET(pd_stream_ops, pause_read, 24);
    OFFSET(pd_stream_ops, resume_read, 32);
    OFFSET(pd_stream_ops, shutdown_write, 40);
    OFFSET(pd_stream_ops, close, 48);
    OFFSET(pd_stream_ops, set_events, 56);
    OFFSET(pd_stream_ops, set_option, 64);
    OFFSET(pd_stream_ops, local_addr, 72);
    OFFSET(pd_stream_ops, peer_addr, 80);
    OFFSET(pd_stream_ops, peer_cred, 88);
    OFFSET(pd_stream_ops, send_fds, 96);
    OFFSET(pd_stream_ops, recv_fds, 104);
    OFFSET(pd_stream_ops, fd, 112);
    SIZE(pd_listener_opts, 40);
    OFFSET(pd_listener_opts, size, 0);
    OFFSET(pd_listener_opts, name, 8);
    OFFSET(pd_listener_opts, backlog, 16);
    OFFSET(pd_listener_opts, reuseport, 20);
    OFFSET(pd_listener_opts, unix_mode, 24);
    OFFSET(pd_listener_opts, inherited_fd, 28);
    OFFSET(pd_listener_opts, has_inherited_fd, 32);
    SIZE(pd_resolve, 32);
    OFFSET(pd_resolve, cb, 0);
    OFFSET(pd_resolve, arg, 8);
    OFFSET(pd_resolve, name, 16);
    OFFSET(pd_resolve, priv, 24);
    SIZE(pd_loop_stats, 376);
    OFFSET(pd_loop_stats, turns, 0);
    OFFSET(pd_loop_stats, busy_ns, 8);
    OFFSET(pd_loop_stats, slow_turns, 16);
    OFFSET(pd_loop_stats, slow_max_ns, 24);
    OFFSET(pd_loop_stats, slow_name, 32);
    OFFSET(pd_loop_stats, lag, 40);
    OFFSET(pd_loop_stats, reads, 232);
    OFFSET(pd_loop_stats, writes, 240);
    OFFSET(pd_loop_stats, accepts, 248);
    OFFSET(pd_loop_stats, polls_changed, 256);
    OFFSET(pd_loop_stats, read_bytes, 264);
    OFFSET(pd_loop_stats, written_bytes, 272);
    OFFSET(pd_loop_stats, accept_backoffs, 280);
    OFFSET(pd_loop_stats, timers_fired, 288);
    OFFSET(pd_loop_stats, tasks_run, 296);
    OFFSET(pd_loop_stats, posts, 304);
    OFFSET(pd_loop_stats, works_run, 312);
    OFFSET(pd_loop_stats, streams, 320);
    OFFSET(pd_loop_stats, listeners, 328);
    OFFSET(pd_loop_stats, watches, 336);
    OFFSET(pd_loop_stats, timers, 344);
    OFFSET(pd_loop_stats, workqs, 352);
    OFFSET(pd_loop_stats, resolves, 360);
    OFFSET(pd_loop_stats, tasks, 368);
    SIZE(pd_loop_ops, 248);
    OFFSET(pd_loop_ops, size, 0);
    OFFSET(pd_loop_ops, clock, 8);
    OFFSET(pd_loop_ops, wall, 16);
    OFFSET(pd_loop_ops, random, 24);
    OFFSET(pd_loop_ops, timer_start, 32);
    OFFSET(pd_loop_ops, timer_stop, 40);
    OFFSET(pd_loop_ops, post, 48);
    OFFSET(pd_loop_ops, defer, 56);
    OFFSET(pd_loop_ops, task_cancel, 64);
    OFFSET(pd_loop_ops, workq_create, 72);
    OFFSET(pd_loop_ops, workq_close, 80);
    OFFSET(pd_loop_ops, work_submit, 88);
    OFFSET(pd_loop_ops, work_cancel, 96);
    OFFSET(pd_loop_ops, connect, 104);
    OFFSET(pd_loop_ops, adopt, 112);
    OFFSET(pd_loop_ops, listener_open, 120);
    OFFSET(pd_loop_ops, listener_addr, 128);
    OFFSET(pd_loop_ops, listener_pause, 136);
    OFFSET(pd_loop_ops, listener_close, 144);
    OFFSET(pd_loop_ops, watch_open, 152);
    OFFSET(pd_loop_ops, watch_set, 160);
    OFFSET(pd_loop_ops, watch_close, 168);
    OFFSET(pd_loop_ops, resolve, 176);
    OFFSET(pd_loop_ops, resolve_cancel, 184);
    OFFSET(pd_loop_ops, addr_parse, 192);
    OFFSET(pd_loop_ops, addr_format, 200);
    OFFSET(pd_loop_ops, stats, 208);
    OFFSET(pd_loop_ops, note, 216);
    OFFSET(pd_loop_ops, run, 224);
    OFFSET(pd_loop_ops, stop, 232);
    OFFSET(pd_loop_ops, destroy, 240);
}

/* <pdplane/module.h> */
static void test_more_module(void **state)
{
    (void)state;
    SIZE(pd_ops_head, 8);
    OFFSET(pd_ops_head, size, 0);
    OFFSET(pd_ops_head, version, 4);
}

/* <pdplane/layout.h> */
static void test_layout(void **state)
{
    (void)state;
    SIZE(pd_layout, 56);
    OFFSET(pd_layout, size, 0);
    OFFSET(pd_layout, order, 4);
    OFFSET(pd_layout, dtype, 8);
    OFFSET(pd_layout, layers, 12);
    OFFSET(pd_layout, kv_heads, 16);
    OFFSET(pd_layout, head_dim, 20);
    OFFSET(pd_layout, block_tokens, 24);
    OFFSET(pd_layout, reserved, 28);
    OFFSET(pd_layout, block_bytes, 32);
    OFFSET(pd_layout, model, 40);
}

/* <pdplane/host.h> */
static void test_host(void **state)
{
    (void)state;
    SIZE(pd_host_memory, 24);
    OFFSET(pd_host_memory, size, 0);
    OFFSET(pd_host_memory, fd, 4);
    OFFSET(pd_host_memory, base, 8);
    OFFSET(pd_host_memory, bytes, 16);
    SIZE(pd_host_api, 64);
    OFFSET(pd_host_api, size, 0);
    OFFSET(pd_host_api, abi_major, 4);
    OFFSET(pd_host_api, abi_minor, 6);
    OFFSET(pd_host_api, version, 8);
    OFFSET(pd_host_api, status_text, 16);
    OFFSET(pd_host_api, memory_alloc, 24);
    OFFSET(pd_host_api, memory_free, 32);
    OFFSET(pd_host_api, table, 40);
    OFFSET(pd_host_api, object, 48);
    OFFSET(pd_host_api, codec, 56);
}

/* <pdplane/engine.h> */
static void test_engine(void **state)
{
    (void)state;
    SIZE(pd_engine_info, 112);
    OFFSET(pd_engine_info, size, 0);
    OFFSET(pd_engine_info, flags, 4);
    OFFSET(pd_engine_info, model, 8);
    OFFSET(pd_engine_info, layout, 16);
    OFFSET(pd_engine_info, context_tokens, 72);
    OFFSET(pd_engine_info, vocab, 76);
    OFFSET(pd_engine_info, blocks, 80);
    OFFSET(pd_engine_info, max_running, 84);
    OFFSET(pd_engine_info, region, 88);
    OFFSET(pd_engine_info, region_bytes, 96);
    OFFSET(pd_engine_info, region_fd, 104);
    OFFSET(pd_engine_info, reserved, 108);
    SIZE(pd_engine_load, 56);
    OFFSET(pd_engine_load, size, 0);
    OFFSET(pd_engine_load, running, 4);
    OFFSET(pd_engine_load, waiting, 8);
    OFFSET(pd_engine_load, blocks_total, 12);
    OFFSET(pd_engine_load, blocks_free, 16);
    OFFSET(pd_engine_load, blocks_cached, 20);
    OFFSET(pd_engine_load, prompt_tokens, 24);
    OFFSET(pd_engine_load, output_tokens, 32);
    OFFSET(pd_engine_load, cached_tokens, 40);
    OFFSET(pd_engine_load, preemptions, 48);
    SIZE(pd_sampling, 64);
    OFFSET(pd_sampling, size, 0);
    OFFSET(pd_sampling, top_k, 4);
    OFFSET(pd_sampling, temperature, 8);
    OFFSET(pd_sampling, top_p, 16);
    OFFSET(pd_sampling, min_p, 24);
    OFFSET(pd_sampling, frequency_penalty, 32);
    OFFSET(pd_sampling, presence_penalty, 40);
    OFFSET(pd_sampling, seed, 48);
    OFFSET(pd_sampling, logprobs, 56);
    OFFSET(pd_sampling, want_logprob, 60);
    SIZE(pd_seq_params, 128);
    OFFSET(pd_seq_params, size, 0);
    OFFSET(pd_seq_params, n_tokens, 4);
    OFFSET(pd_seq_params, tokens, 8);
    OFFSET(pd_seq_params, cache_salt, 16);
    OFFSET(pd_seq_params, sampling, 32);
    OFFSET(pd_seq_params, max_output, 96);
    OFFSET(pd_seq_params, n_output_given, 100);
    OFFSET(pd_seq_params, ignore_eos, 104);
    OFFSET(pd_seq_params, priority, 108);
    OFFSET(pd_seq_params, request_id, 112);
    SIZE(pd_logprob, 8);
    OFFSET(pd_logprob, token, 0);
    OFFSET(pd_logprob, logprob, 4);
    SIZE(pd_token, 32);
    OFFSET(pd_token, size, 0);
    OFFSET(pd_token, id, 4);
    OFFSET(pd_token, position, 8);
    OFFSET(pd_token, logprob, 12);
    OFFSET(pd_token, n_top, 16);
    OFFSET(pd_token, reserved, 20);
    OFFSET(pd_token, top, 24);
    SIZE(pd_seq_events, 32);
    OFFSET(pd_seq_events, size, 0);
    OFFSET(pd_seq_events, reserved, 4);
    OFFSET(pd_seq_events, on_kv, 8);
    OFFSET(pd_seq_events, on_token, 16);
    OFFSET(pd_seq_events, on_finish, 24);
    SIZE(pd_message, 32);
    OFFSET(pd_message, role, 0);
    OFFSET(pd_message, content, 16);
    SIZE(pd_engine_ops, 112);
    OFFSET(pd_engine_ops, head, 0);
    OFFSET(pd_engine_ops, create, 8);
    OFFSET(pd_engine_ops, destroy, 16);
    OFFSET(pd_engine_ops, info, 24);
    OFFSET(pd_engine_ops, load, 32);
    OFFSET(pd_engine_ops, encode, 40);
    OFFSET(pd_engine_ops, encode_chat, 48);
    OFFSET(pd_engine_ops, piece, 56);
    OFFSET(pd_engine_ops, cached, 64);
    OFFSET(pd_engine_ops, seq_open, 72);
    OFFSET(pd_engine_ops, seq_blocks, 80);
    OFFSET(pd_engine_ops, seq_import, 88);
    OFFSET(pd_engine_ops, seq_run, 96);
    OFFSET(pd_engine_ops, seq_close, 104);
}

/* <pdplane/transport.h> */
static void test_transport(void **state)
{
    (void)state;
    SIZE(pd_transport_info, 40);
    OFFSET(pd_transport_info, size, 0);
    OFFSET(pd_transport_info, flags, 4);
    OFFSET(pd_transport_info, max_segments, 8);
    OFFSET(pd_transport_info, failure_ms, 12);
    OFFSET(pd_transport_info, max_bytes, 16);
    OFFSET(pd_transport_info, bandwidth, 24);
    OFFSET(pd_transport_info, latency_ns, 32);
    SIZE(pd_memory_desc, 40);
    OFFSET(pd_memory_desc, size, 0);
    OFFSET(pd_memory_desc, fd, 4);
    OFFSET(pd_memory_desc, base, 8);
    OFFSET(pd_memory_desc, bytes, 16);
    OFFSET(pd_memory_desc, fd_offset, 24);
    OFFSET(pd_memory_desc, dtype, 32);
    OFFSET(pd_memory_desc, element_bytes, 36);
    SIZE(pd_segment, 16);
    OFFSET(pd_segment, offset, 0);
    OFFSET(pd_segment, bytes, 8);
    SIZE(pd_window_desc, 72);
    OFFSET(pd_window_desc, size, 0);
    OFFSET(pd_window_desc, access, 4);
    OFFSET(pd_window_desc, peer, 8);
    OFFSET(pd_window_desc, xid, 32);
    OFFSET(pd_window_desc, generation, 40);
    OFFSET(pd_window_desc, memory, 48);
    OFFSET(pd_window_desc, segments, 56);
    OFFSET(pd_window_desc, n_segments, 64);
    OFFSET(pd_window_desc, reserved, 68);
    SIZE(pd_window_events, 24);
    OFFSET(pd_window_events, size, 0);
    OFFSET(pd_window_events, reserved, 4);
    OFFSET(pd_window_events, on_bytes, 8);
    OFFSET(pd_window_events, on_closed, 16);
    SIZE(pd_transport_peer_desc, 72);
    OFFSET(pd_transport_peer_desc, size, 0);
    OFFSET(pd_transport_peer_desc, address_len, 4);
    OFFSET(pd_transport_peer_desc, node, 8);
    OFFSET(pd_transport_peer_desc, address, 32);
    OFFSET(pd_transport_peer_desc, host, 40);
    OFFSET(pd_transport_peer_desc, grant, 56);
    OFFSET(pd_transport_peer_desc, grant_len, 64);
    SIZE(pd_transport_peer_events, 40);
    OFFSET(pd_transport_peer_events, size, 0);
    OFFSET(pd_transport_peer_events, reserved, 4);
    OFFSET(pd_transport_peer_events, on_up, 8);
    OFFSET(pd_transport_peer_events, on_down, 16);
    OFFSET(pd_transport_peer_events, on_writable, 24);
    OFFSET(pd_transport_peer_events, on_done, 32);
    SIZE(pd_post, 48);
    OFFSET(pd_post, size, 0);
    OFFSET(pd_post, op, 4);
    OFFSET(pd_post, offset, 8);
    OFFSET(pd_post, memory, 16);
    OFFSET(pd_post, segments, 24);
    OFFSET(pd_post, n_segments, 32);
    OFFSET(pd_post, reserved, 36);
    OFFSET(pd_post, arg, 40);
    SIZE(pd_transport_stats, 88);
    OFFSET(pd_transport_stats, size, 0);
    OFFSET(pd_transport_stats, reserved, 4);
    OFFSET(pd_transport_stats, posts, 8);
    OFFSET(pd_transport_stats, done_ok, 16);
    OFFSET(pd_transport_stats, done_canceled, 24);
    OFFSET(pd_transport_stats, done_failed, 32);
    OFFSET(pd_transport_stats, bytes_out, 40);
    OFFSET(pd_transport_stats, bytes_in, 48);
    OFFSET(pd_transport_stats, dropped_stale, 56);
    OFFSET(pd_transport_stats, dropped_bounds, 64);
    OFFSET(pd_transport_stats, corrupt, 72);
    OFFSET(pd_transport_stats, refused, 80);
    SIZE(pd_transport_ops, 136);
    OFFSET(pd_transport_ops, head, 0);
    OFFSET(pd_transport_ops, create, 8);
    OFFSET(pd_transport_ops, destroy, 16);
    OFFSET(pd_transport_ops, info, 24);
    OFFSET(pd_transport_ops, stats, 32);
    OFFSET(pd_transport_ops, address, 40);
    OFFSET(pd_transport_ops, memory_add, 48);
    OFFSET(pd_transport_ops, memory_remove, 56);
    OFFSET(pd_transport_ops, window_open, 64);
    OFFSET(pd_transport_ops, window_export, 72);
    OFFSET(pd_transport_ops, window_close, 80);
    OFFSET(pd_transport_ops, connect, 88);
    OFFSET(pd_transport_ops, disconnect, 96);
    OFFSET(pd_transport_ops, target_open, 104);
    OFFSET(pd_transport_ops, target_close, 112);
    OFFSET(pd_transport_ops, post, 120);
    OFFSET(pd_transport_ops, cancel, 128);
}

/* <pdplane/scheduler.h> */
static void test_scheduler(void **state)
{
    (void)state;
    SIZE(pd_endpoint_view, 80);
    OFFSET(pd_endpoint_view, size, 0);
    OFFSET(pd_endpoint_view, slot, 4);
    OFFSET(pd_endpoint_view, serial, 8);
    OFFSET(pd_endpoint_view, name, 16);
    OFFSET(pd_endpoint_view, roles, 24);
    OFFSET(pd_endpoint_view, state, 28);
    OFFSET(pd_endpoint_view, running, 32);
    OFFSET(pd_endpoint_view, waiting, 36);
    OFFSET(pd_endpoint_view, inflight, 40);
    OFFSET(pd_endpoint_view, dispatched, 44);
    OFFSET(pd_endpoint_view, blocks_total, 48);
    OFFSET(pd_endpoint_view, blocks_free, 52);
    OFFSET(pd_endpoint_view, inflight_tokens, 56);
    OFFSET(pd_endpoint_view, report_age_ns, 64);
    OFFSET(pd_endpoint_view, match_blocks, 72);
    OFFSET(pd_endpoint_view, weight, 76);
    SIZE(pd_sched_request, 96);
    OFFSET(pd_sched_request, size, 0);
    OFFSET(pd_sched_request, roles, 4);
    OFFSET(pd_sched_request, profile, 8);
    OFFSET(pd_sched_request, model, 24);
    OFFSET(pd_sched_request, session, 40);
    OFFSET(pd_sched_request, prompt_bytes, 56);
    OFFSET(pd_sched_request, prompt_tokens, 64);
    OFFSET(pd_sched_request, tokens_exact, 72);
    OFFSET(pd_sched_request, max_output, 76);
    OFFSET(pd_sched_request, prompt_blocks, 80);
    OFFSET(pd_sched_request, block_tokens, 84);
    OFFSET(pd_sched_request, random, 88);
    SIZE(pd_filter_ops, 40);
    OFFSET(pd_filter_ops, head, 0);
    OFFSET(pd_filter_ops, create, 8);
    OFFSET(pd_filter_ops, destroy, 16);
    OFFSET(pd_filter_ops, apply, 24);
    OFFSET(pd_filter_ops, flags, 32);
    SIZE(pd_scorer_ops, 48);
    OFFSET(pd_scorer_ops, head, 0);
    OFFSET(pd_scorer_ops, create, 8);
    OFFSET(pd_scorer_ops, destroy, 16);
    OFFSET(pd_scorer_ops, score, 24);
    OFFSET(pd_scorer_ops, picked, 32);
    OFFSET(pd_scorer_ops, flags, 40);
    SIZE(pd_picker_ops, 40);
    OFFSET(pd_picker_ops, head, 0);
    OFFSET(pd_picker_ops, create, 8);
    OFFSET(pd_picker_ops, destroy, 16);
    OFFSET(pd_picker_ops, pick, 24);
    OFFSET(pd_picker_ops, flags, 32);
    SIZE(pd_decision, 112);
    OFFSET(pd_decision, size, 0);
    OFFSET(pd_decision, mode, 4);
    OFFSET(pd_decision, min_tokens, 8);
    OFFSET(pd_decision, reason, 16);
    SIZE(pd_decider_ops, 32);
    OFFSET(pd_decider_ops, head, 0);
    OFFSET(pd_decider_ops, create, 8);
    OFFSET(pd_decider_ops, destroy, 16);
    OFFSET(pd_decider_ops, decide, 24);
}

/* <pdplane/discovery.h> */
static void test_discovery(void **state)
{
    (void)state;
    SIZE(pd_discovery_label, 32);
    OFFSET(pd_discovery_label, key, 0);
    OFFSET(pd_discovery_label, value, 16);
    SIZE(pd_discovery_entry, 96);
    OFFSET(pd_discovery_entry, size, 0);
    OFFSET(pd_discovery_entry, what, 4);
    OFFSET(pd_discovery_entry, name, 8);
    OFFSET(pd_discovery_entry, address, 24);
    OFFSET(pd_discovery_entry, type, 40);
    OFFSET(pd_discovery_entry, epoch, 56);
    OFFSET(pd_discovery_entry, roles, 64);
    OFFSET(pd_discovery_entry, weight, 68);
    OFFSET(pd_discovery_entry, models, 72);
    OFFSET(pd_discovery_entry, labels, 80);
    OFFSET(pd_discovery_entry, n_models, 88);
    OFFSET(pd_discovery_entry, n_labels, 92);
    SIZE(pd_discovery_sink, 8);
    OFFSET(pd_discovery_sink, ops, 0);
    SIZE(pd_discovery_sink_ops, 64);
    OFFSET(pd_discovery_sink_ops, size, 0);
    OFFSET(pd_discovery_sink_ops, begin, 8);
    OFFSET(pd_discovery_sink_ops, put, 16);
    OFFSET(pd_discovery_sink_ops, remove, 24);
    OFFSET(pd_discovery_sink_ops, end, 32);
    OFFSET(pd_discovery_sink_ops, synced, 40);
    OFFSET(pd_discovery_sink_ops, lost, 48);
    OFFSET(pd_discovery_sink_ops, broken, 56);
    SIZE(pd_discovery_ops, 48);
    OFFSET(pd_discovery_ops, head, 0);
    OFFSET(pd_discovery_ops, flags, 8);
    OFFSET(pd_discovery_ops, create, 16);
    OFFSET(pd_discovery_ops, start, 24);
    OFFSET(pd_discovery_ops, refresh, 32);
    OFFSET(pd_discovery_ops, destroy, 40);
}

/* <pdplane/codec.h> */
static void test_codec(void **state)
{
    (void)state;
    SIZE(pd_codec_info, 40);
    OFFSET(pd_codec_info, size, 0);
    OFFSET(pd_codec_info, flags, 4);
    OFFSET(pd_codec_info, format, 8);
    OFFSET(pd_codec_info, align, 12);
    OFFSET(pd_codec_info, max_bytes, 16);
    OFFSET(pd_codec_info, encode_rate, 24);
    OFFSET(pd_codec_info, decode_rate, 32);
    SIZE(pd_codec_hint, 16);
    OFFSET(pd_codec_hint, size, 0);
    OFFSET(pd_codec_hint, dtype, 4);
    OFFSET(pd_codec_hint, element_bytes, 8);
    SIZE(pd_codec_ops, 72);
    OFFSET(pd_codec_ops, head, 0);
    OFFSET(pd_codec_ops, create, 8);
    OFFSET(pd_codec_ops, destroy, 16);
    OFFSET(pd_codec_ops, info, 24);
    OFFSET(pd_codec_ops, bound, 32);
    OFFSET(pd_codec_ops, state_open, 40);
    OFFSET(pd_codec_ops, state_close, 48);
    OFFSET(pd_codec_ops, encode, 56);
    OFFSET(pd_codec_ops, decode, 64);
}

/* <pdplane/exporter.h> */
static void test_exporter(void **state)
{
    (void)state;
    SIZE(pd_export_request, 40);
    OFFSET(pd_export_request, size, 0);
    OFFSET(pd_export_request, accept, 8);
    OFFSET(pd_export_request, query, 24);
    SIZE(pd_export_answer_ops, 16);
    OFFSET(pd_export_answer_ops, size, 0);
    OFFSET(pd_export_answer_ops, write, 8);
    SIZE(pd_export_answer, 16);
    OFFSET(pd_export_answer, ops, 0);
    OFFSET(pd_export_answer, type, 8);
    SIZE(pd_exporter_ops, 48);
    OFFSET(pd_exporter_ops, head, 0);
    OFFSET(pd_exporter_ops, create, 8);
    OFFSET(pd_exporter_ops, destroy, 16);
    OFFSET(pd_exporter_ops, start, 24);
    OFFSET(pd_exporter_ops, path, 32);
    OFFSET(pd_exporter_ops, serve, 40);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_prefix),
    cmocka_unit_test(test_module),
    cmocka_unit_test(test_conf),
    cmocka_unit_test(test_types),
    cmocka_unit_test(test_log),
    cmocka_unit_test(test_metric),
    cmocka_unit_test(test_loop),
    cmocka_unit_test(test_more_module),
    cmocka_unit_test(test_layout),
    cmocka_unit_test(test_host),
    cmocka_unit_test(test_engine),
    cmocka_unit_test(test_transport),
    cmocka_unit_test(test_scheduler),
    cmocka_unit_test(test_discovery),
    cmocka_unit_test(test_codec),
    cmocka_unit_test(test_exporter),
};

PD_UNIT_MAIN(tests)
