/* SPDX-License-Identifier: Apache-2.0 */
/* What OpenSSL sees of the stream below a stream of TLS. */
#include "net/tls_stream.h"

static int bio_read(BIO *b, char *p, size_t n, size_t *got)
{
    struct tls_stream *s = BIO_get_data(b);
    pd_status st = pd_stream_read(s->inner, p, n, got);

    BIO_clear_retry_flags(b);
    if (st == PD_OK)
        return 1;
    *got = 0;
    if (st == PD_EAGAIN) {
        BIO_set_retry_read(b);
    } else if (st == PD_EEOF) {
        s->inner_eof = true;
        return 0;
    } else {
        s->inner_status = st;
    }
    return -1;
}

static int bio_write(BIO *b, const char *p, size_t n, size_t *sent)
{
    struct tls_stream *s = BIO_get_data(b);

    BIO_clear_retry_flags(b);
    if (s->out.base == NULL && s->tls->spare.base != NULL) {
        s->out = s->tls->spare;
        pd_buf_init(&s->tls->spare, PD_TLS_OUT);
    }
    if (pd_buf_append(&s->out, p, n) != PD_OK)
        return -1;
    *sent = n;
    return 1;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *p)
{
    const struct tls_stream *s = BIO_get_data(b);

    (void)num;
    (void)p;
    switch (cmd) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return s->inner_eof;
    default:
        return 0;
    }
}

BIO_METHOD *pd_tls_bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pd_stream");

    if (m != NULL && (BIO_meth_set_read_ex(m, bio_read) != 1 ||
                      BIO_meth_set_write_ex(m, bio_write) != 1 ||
                      BIO_meth_set_ctrl(m, bio_ctrl) != 1)) {
        BIO_meth_free(m);
        return NULL;
    }
    return m;
}
