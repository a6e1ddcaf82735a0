/* SPDX-License-Identifier: Apache-2.0 */
/* TLS: a stream over another stream.
 *
 * A context (struct pd_tls) holds what one side of a listener, an upstream or
 * the links need: certificate, key, authorities, the name to check.  It reads
 * its files again when they have changed, at a new handshake and at most every
 * few seconds; connections that are open go on with what they began with.
 *
 * TLS 1.2 (AEAD suites with forward secrecy) and 1.3; no renegotiation, no
 * compression, no session tickets, no resumption.  The peer's certificate is
 * always verified where one is asked for; that cannot be turned off.
 *
 * Everything runs on the loop's thread. */
#ifndef PD_NET_TLS_H
#define PD_NET_TLS_H

#include <pdplane/log.h>
#include <pdplane/loop.h>

struct pd_tls;

/* Why a handshake failed: symbol, label of the metric, text for people. */
#define PD_TLS_FAIL_TABLE(X)                                                           \
    X(TIMEOUT, "timeout", "it took too long")                                          \
    X(CLOSED, "closed", "the other side went away")                                    \
    X(NOT_TLS, "not_tls", "the other side does not speak TLS")                         \
    X(PROTOCOL, "protocol", "the other side breaks the rules of TLS")                  \
    X(NOTHING_SHARED, "nothing_shared", "no shared protocol version, cipher or application protocol") \
    X(NO_CERTIFICATE, "no_certificate", "the other side has no certificate")           \
    X(EXPIRED, "expired", "the other side's certificate has expired or is not valid yet") \
    X(AUTHORITY, "unknown_authority", "the other side's certificate is of an unknown authority") \
    X(NAME, "name", "the other side's certificate is for another name")                \
    X(CERTIFICATE, "bad_certificate", "the other side's certificate cannot be used")   \
    X(REFUSED, "refused", "the other side refused")                                    \
    X(LIMIT, "limit", "too many handshakes at a time")                                 \
    X(MEMORY, "memory", "out of memory")

enum pd_tls_fail {
#define PD_TLS_FAIL_ENUM(sym, label, text) PD_TLS_FAIL_##sym,
    PD_TLS_FAIL_TABLE(PD_TLS_FAIL_ENUM)
#undef PD_TLS_FAIL_ENUM
    PD_TLS_FAILS
};
/* "timeout" and so on; never NULL. */
const char *pd_tls_fail_label(enum pd_tls_fail fail);

struct pd_tls_conf {
    bool is_server;
    const char *what;           /* what it is for, in log lines: "clients" */
    const char *certificate;    /* PEM: own certificate first, then the chain; a server needs one */
    const char *key;            /* PEM, mode 0640 or less; with certificate */
    const char *passphrase;     /* file with that of the key, mode 0640 or less; NULL: it has none */
    const char *ca;             /* PEM: authorities of the other side.  Server: clients must show a
                                 * certificate; NULL: none is asked for.  Client: NULL: the system's */
    const char *name;           /* DNS name or address that the other side's certificate must have;
                                 * NULL: any certificate of the authorities will do (needs ca) */
    const char *alpn;           /* the only application protocol; NULL: "http/1.1" */
    pd_time handshake_ns;       /* 0: 5 s */
    uint32_t max_handshakes;    /* at a time, 0: 1024; more are closed */
};

struct pd_tls_stats {
    uint64_t ok;
    uint64_t failed[PD_TLS_FAILS];
    uint64_t reloads;           /* files that had changed and were taken */
    uint64_t reload_failures;   /* files that had changed and were bad: the old ones stay */
    uint64_t handshaking;       /* now */
    uint64_t streams;           /* now */
};

/* Reads the files.  conf and its strings are copied; log may be NULL and is
 * borrowed.  PD_OK, or err says which file is wrong and why.  Gives:
 * pd_tls_destroy. */
pd_status pd_tls_create(struct pd_loop *loop, struct pd_log *log, const struct pd_tls_conf *conf,
                        struct pd_tls **out, struct pd_err *err);
/* Takes tls; NULL is allowed.  Streams that are open go on, those who hold it may
 * make more; its memory goes with the last of them. */
void pd_tls_destroy(struct pd_tls *tls);
/* Keeps it usable until pd_tls_release; NULL is allowed. */
void pd_tls_hold(struct pd_tls *tls);
void pd_tls_release(struct pd_tls *tls);
/* Its files are looked at again at the next handshake; NULL is allowed. */
void pd_tls_look(struct pd_tls *tls);
/* Borrowed; changes with time. */
const struct pd_tls_stats *pd_tls_stats(const struct pd_tls *tls);

/* Wraps an accepted stream; to be called where its events were to be set.
 * Takes inner in any case.  PD_OK gives a stream that can be used like the one
 * below it: the handshake goes on beneath, reads and writes wait for it, and
 * its failure is the error of the next read.  The caller owes
 * pd_stream_set_events.  PD_ENOMEM, PD_ELIMIT. */
pd_status pd_tls_accept(struct pd_tls *tls, struct pd_stream *inner, struct pd_stream **out);
/* As pd_stream_connect; on_connected comes after the handshake: besides the
 * usual ones PD_EPERM (a certificate was refused, by either side) and PD_EPROTO. */
pd_status pd_tls_connect(struct pd_tls *tls, const struct pd_addr *to,
                         const struct pd_stream_events *ev, void *arg, struct pd_stream **out);

/* The node that the other side's certificate names (a subjectAltName
 * URI:urn:uuid:...).  False: it names none, or s is no TLS stream. */
bool pd_tls_stream_node(const struct pd_stream *s, struct pd_uuid *out);

#endif
