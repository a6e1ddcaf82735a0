/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: moves bytes between the memory of two nodes.  Not written yet: create
 * says so, and while the version of the module is "0" pdconform leaves out the
 * cases that need an instance.  The order in which to write it:
 *
 *   create, destroy, info, address     an instance that can be named
 *   memory_add, memory_remove          registered memory
 *   window_open, _export, _close       the owner's side
 *   connect, disconnect                the way to a node
 *   target_open, _close, post, cancel  the other side
 *
 * then set .version to "0.1".  The contract stands in <pdplane/transport.h>. */
#include <stdio.h>
#include <string.h>

#include <pdplane/transport.h>

struct @NAME@_conf {           /* filled from the rows below */
    const char *listen;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_STRING("listen", struct @NAME@_conf, listen, "0.0.0.0:0",
                  .help = "Numeric address and port that other nodes connect to."),
    PD_OPT_END
};

static pd_status @NAME@_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_transport **out, struct pd_err *err)
{
    (void)ctx;
    (void)conf;
    (void)out;
    err->status = PD_ENOSYS;
    snprintf(err->text, sizeof err->text, "the transport @NAME@ is not written yet");
    return PD_ENOSYS;
}

/* Without an instance nobody calls what follows. */
static void @NAME@_destroy(struct pd_transport *transport, void (*on_closed)(void *arg), void *arg)
{
    (void)transport;
    on_closed(arg);
}

static void @NAME@_info(struct pd_transport *transport, struct pd_transport_info *out)
{
    (void)transport;
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
}

static pd_status @NAME@_address(struct pd_transport *transport, void *buf, size_t cap, size_t *len)
{
    (void)transport;
    (void)buf;
    (void)cap;
    (void)len;
    return PD_ENOSYS;
}

static pd_status @NAME@_memory_add(struct pd_transport *transport, const struct pd_memory_desc *desc,
                                   struct pd_transport_memory **out, struct pd_err *err)
{
    (void)transport;
    (void)desc;
    (void)out;
    err->status = PD_ENOSYS;
    return PD_ENOSYS;
}

static pd_status @NAME@_memory_remove(struct pd_transport_memory *memory)
{
    (void)memory;
    return PD_ENOSYS;
}

static pd_status @NAME@_window_open(struct pd_transport *transport, const struct pd_window_desc *desc,
                                    const struct pd_window_events *events, void *arg,
                                    struct pd_transport_window **out)
{
    (void)transport;
    (void)desc;
    (void)events;
    (void)arg;
    (void)out;
    return PD_ENOSYS;
}

static pd_status @NAME@_window_export(struct pd_transport_window *window, void *buf, size_t cap, size_t *len)
{
    (void)window;
    (void)buf;
    (void)cap;
    (void)len;
    return PD_ENOSYS;
}

static void @NAME@_window_close(struct pd_transport_window *window)
{
    (void)window;
}

static pd_status @NAME@_connect(struct pd_transport *transport, const struct pd_transport_peer_desc *desc,
                                const struct pd_transport_peer_events *events, void *arg,
                                struct pd_transport_peer **out)
{
    (void)transport;
    (void)desc;
    (void)events;
    (void)arg;
    (void)out;
    return PD_ENOSYS;
}

static void @NAME@_disconnect(struct pd_transport_peer *peer, uint32_t how)
{
    (void)peer;
    (void)how;
}

static pd_status @NAME@_target_open(struct pd_transport_peer *peer, const void *blob, size_t len,
                                    struct pd_transport_target **out)
{
    (void)peer;
    (void)blob;
    (void)len;
    (void)out;
    return PD_ENOSYS;
}

static void @NAME@_target_close(struct pd_transport_target *target)
{
    (void)target;
}

static pd_status @NAME@_post(struct pd_transport_target *target, const struct pd_post *post,
                             struct pd_transfer **out)
{
    (void)target;
    (void)post;
    (void)out;
    return PD_ENOSYS;
}

static void @NAME@_cancel(struct pd_transfer *transfer)
{
    (void)transfer;
}

static const struct pd_transport_ops @NAME@_ops = {
    .head = PD_OPS(pd_transport_ops, PD_TRANSPORT_V1),
    .create = @NAME@_create, .destroy = @NAME@_destroy, .info = @NAME@_info, .address = @NAME@_address,
    .memory_add = @NAME@_memory_add, .memory_remove = @NAME@_memory_remove,
    .window_open = @NAME@_window_open, .window_export = @NAME@_window_export,
    .window_close = @NAME@_window_close, .connect = @NAME@_connect, .disconnect = @NAME@_disconnect,
    .target_open = @NAME@_target_open, .target_close = @NAME@_target_close, .post = @NAME@_post,
    .cancel = @NAME@_cancel,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_TRANSPORT, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Moves bytes between the memory of two nodes."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0", .summary = "A transport that is not written yet.",
          .units = @NAME@_units)
