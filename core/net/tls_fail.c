/* SPDX-License-Identifier: Apache-2.0 */
/* Why there is no connection: OpenSSL's reasons as ours, the labels that metrics have for
 * them, and the words for operators. */
#include "net/tls_int.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>

const char *pd_tls_fail_label(enum pd_tls_fail fail)
{
    static const char *const labels[] = {
#define LABEL(sym, label, text) label,
        PD_TLS_FAIL_TABLE(LABEL)
    };
    return (unsigned)fail < PD_TLS_FAILS ? labels[fail] : "unknown";
}

static const char *fail_text(enum pd_tls_fail fail)
{
    static const char *const texts[] = {
#define TEXT(sym, label, text) text,
        PD_TLS_FAIL_TABLE(TEXT)
    };
    return texts[fail];
}

static enum pd_tls_fail verify_fail(long v)
{
    switch (v) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return PD_TLS_FAIL_EXPIRED;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_UNTRUSTED:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        return PD_TLS_FAIL_AUTHORITY;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
    case X509_V_ERR_EMAIL_MISMATCH:
        return PD_TLS_FAIL_NAME;
    default:
        return PD_TLS_FAIL_CERTIFICATE;
    }
}

static enum pd_tls_fail reason_fail(int reason)
{
    switch (reason) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
        return PD_TLS_FAIL_NOT_TLS;
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_NO_APPLICATION_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
    case SSL_R_TLSV1_ALERT_INSUFFICIENT_SECURITY:
    case SSL_AD_REASON_OFFSET + TLS1_AD_NO_APPLICATION_PROTOCOL:
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
        return PD_TLS_FAIL_NOTHING_SHARED;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return PD_TLS_FAIL_NO_CERTIFICATE;
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return PD_TLS_FAIL_CLOSED;
    default:
        return reason >= SSL_AD_REASON_OFFSET ? PD_TLS_FAIL_REFUSED : PD_TLS_FAIL_PROTOCOL;
    }
}

enum pd_tls_fail pd_tls_reason(SSL *ssl, char *text, size_t size)
{
    unsigned long e = ERR_peek_error();
    int reason = ERR_GET_LIB(e) == ERR_LIB_SSL ? ERR_GET_REASON(e) : 0;
    long verify = SSL_get_verify_result(ssl);
    enum pd_tls_fail fail;

    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK)
        fail = verify_fail(verify);
    else if (e == 0)
        fail = PD_TLS_FAIL_CLOSED;
    else if (ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE)
        fail = PD_TLS_FAIL_MEMORY;
    else
        fail = reason_fail(reason);
    const char *more = fail == PD_TLS_FAIL_CERTIFICATE ? X509_verify_cert_error_string(verify)
                     : fail == PD_TLS_FAIL_REFUSED || fail == PD_TLS_FAIL_PROTOCOL
                       ? ERR_reason_error_string(e) : NULL;
    snprintf(text, size, "%s%s%s", fail_text(fail), more != NULL ? ": " : "", more != NULL ? more : "");
    ERR_clear_error();
    return fail;
}
