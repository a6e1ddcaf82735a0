# SPDX-License-Identifier: Apache-2.0
# Certificates for one run of a test, made with the openssl command; no key is
# ever kept.
#
#   authority('ca');                                 # ca.pem, ca.key
#   leaf('server', 'ca', 'DNS:localhost,IP:127.0.0.1');
#   pem('server')   key('server')                    # paths
package PDPlane::Certs;

use strict;
use warnings;

use Exporter 'import';

use PDPlane::Test qw(folder);

our @EXPORT_OK = qw(have_openssl authority leaf pem key);

sub have_openssl { return `openssl version 2>&1` =~ /^OpenSSL 3/ }

sub pem { return folder() . "/$_[0].pem" }
sub key { return folder() . "/$_[0].key" }

sub make {
    my ($name, @more) = @_;
    my $err = folder() . '/openssl.err';
    my $old = umask 077;
    my @command = (qw(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj), "/CN=$name",
        '-keyout', key($name), '-out', pem($name), @more);
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDERR, '>', $err or die $!;
        exec @command or die $!;
    }
    waitpid $pid, 0;
    umask $old;
    die "openssl: " . do { local (@ARGV, $/) = $err; <> } if $? != 0;
    return;
}

sub authority { return make($_[0]) }

sub leaf {
    my ($name, $ca, $names) = @_;
    return make($name, '-CA', pem($ca), '-CAkey', key($ca), '-addext', 'basicConstraints=critical,CA:FALSE',
        '-addext', "subjectAltName=$names");
}

1;
