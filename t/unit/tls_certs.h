/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates for tests of TLS, made when a test begins. */
#ifndef PD_T_TLS_CERTS_H
#define PD_T_TLS_CERTS_H

#include "unit.h"

/* The client's certificate names it. */
#define NODE "0f0e0d0c-0b0a-4908-8706-050403020100"

static char folder[64];

static void shell(const char *text)
{
    char line[2048];

    (void)snprintf(line, sizeof(line), "cd %s && %s", folder, text);
    if (system(line) != 0)
        fail_msg("%s", line);
}

static int make_certificates(void **state)
{
    static const char script[] =
        "umask 077; new() { f=$1; shift; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
        "-nodes -keyout $f.key -out $f.pem -subj /CN=$f \"$@\" 2>err || { cat err; exit 1; }; }; "
        "leaf() { f=$1 c=$2 d=$3 n=$4; new $f -CA $c.pem -CAkey $c.key -days $d -addext "
        "basicConstraints=critical,CA:FALSE -addext subjectAltName=$n; }; "
        "new ca -days 30; new other -days 30; leaf server ca 30 DNS:localhost,IP:127.0.0.1; "
        "printf subjectAltName=DNS:localhost >ext; openssl req -newkey ec -pkeyopt "
        "ec_paramgen_curve:P-256 -nodes -keyout expired.key -out csr -subj /CN=expired 2>err && "
        "openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -set_serial 7 -days -1 -extfile ext "
        "-out expired.pem 2>err || cat err; leaf client ca 30 URI:urn:uuid:" NODE "; "
        "leaf stranger other 30 DNS:localhost";

    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/pd-tls-XXXXXX");
    assert_non_null(mkdtemp(folder));
    shell(script);
    return 0;
}

static int remove_certificates(void **state)
{
    char line[128];

    (void)state;
    (void)snprintf(line, sizeof(line), "rm -rf %s", folder);
    return system(line);
}

#endif
