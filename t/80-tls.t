# SPDX-License-Identifier: Apache-2.0
# TLS of real nodes: listeners for clients and operators, client certificates,
# links between nodes, upstreams; what is refused and what the log says then.
use strict;
use warnings;

use IO::Socket::INET;
use Test::More;

use PDPlane::Certs qw(have_openssl authority leaf pem key);
use PDPlane::Daemon qw(topology until_true port);
use PDPlane::FakeEngine;
use PDPlane::Golden qw(golden greedy text_of);
use PDPlane::Http qw(post get json_of);
use PDPlane::Test qw(folder spew slurp);

plan skip_all => 'needs the commands openssl and curl' unless have_openssl() && `curl --version 2>&1` =~ /^curl/;

authority($_) for qw(ca other);
leaf('server', 'ca', 'DNS:localhost,IP:127.0.0.1');
leaf('client', 'ca', 'DNS:client');
leaf('stranger', 'other', 'DNS:localhost,IP:127.0.0.1');
leaf('node', 'ca', 'DNS:node.example');

sub curl {
    my (@args) = @_;
    my $out = folder() . '/curl.out';
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDOUT, '>', $out or die $!;
        open STDERR, '>&', \*STDOUT or die $!;
        exec qw(curl -sS --noproxy * -m 20 -w), "\n%{http_code} %{http_version}", @args or die $!;
    }
    waitpid $pid, 0;
    return (slurp($out), $? >> 8);
}

sub tls_group { my ($name, $ca) = @_;
    return sprintf 'tls = { certificate = "%s"; key = "%s"; %s };', pem($name), key($name), $ca ? sprintf('ca = "%s";', pem($ca)) : '' }

# ---- listeners
my $node = PDPlane::Daemon->new('tls', sprintf q(
load = [ "router", "decode", "ref" ];
engine = ( { name = "tiny"; type = "ref"; model = "%%%%MODEL%%%%"; roles = [ "decode" ]; } );
listen = ( { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; },
           { address = "127.0.0.1:%%%%PORT_plain%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_tls%%%%"; api = "openai"; %s },
           { address = "127.0.0.1:%%%%PORT_atls%%%%"; api = "admin"; %s },
           { address = "127.0.0.1:%%%%PORT_mtls%%%%"; api = "openai"; %s } );
), tls_group('server'), tls_group('server'), tls_group('server', 'ca'));
$node->start;
my ($tls, $atls, $mtls) = map { port($_) } qw(tls atls mtls);
until_true(10, sub { (get(port('plain'), '/v1/models')->{body} // '') =~ /tiny/ });
my @golden = golden();
my ($path, $ask) = @{ (greedy())[0] };
my $body = spew('ask.json', JSON::PP->new->canonical->encode($ask));
my ($got, $rc) = curl('--cacert', pem('ca'), '-d', "\@$body", '-H', 'content-type: application/json', "https://localhost:$tls$path");
like $got, qr/\n200 1\.1$/, 'a completion over TLS';
(my $answer = $got) =~ s/\n\d+ [\d.]+$//;
is text_of({ status => 200, body => $answer, complete => 1 }), $golden[0]{text}, 'with the golden text';
($got) = curl('--cacert', pem('ca'), '--tlsv1.2', '--tls-max', '1.2', "https://localhost:$tls/v1/models");
like $got, qr/\n200/, 'TLS 1.2';
($got) = curl('--cacert', pem('ca'), "https://127.0.0.1:$tls/v1/models", "https://127.0.0.1:$tls/health");
like $got, qr/\n200.*\n200/s, 'two requests over one connection';
($got) = curl('--cacert', pem('ca'), "https://localhost:$atls/metrics");
like $got, qr/pdplane_build_info/, 'metrics over TLS';
($got, $rc) = curl('--cacert', pem('other'), "https://localhost:$tls/v1/models");
isnt $rc, 0, 'a client that trusts another authority goes away';
ok until_true(5, sub { ($node->metric('pdplane_tls_handshakes_total{listener="127.0.0.1:' . $tls . '",result="refused"}') // 0) == 1 }),
    'and is counted';

sub s_client {
    my (@args) = @_;
    return scalar `openssl s_client -connect 127.0.0.1:$tls -CAfile @{[pem('ca')]} @args </dev/null 2>&1`;
}
for my $bad (['-tls1_1', 'TLS 1.1'], ['-tls1_2 -cipher AES128-SHA256', 'a suite without forward secrecy'],
    ['-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256', 'a suite without AEAD'], ['-alpn h2', 'another application protocol']) {
    like s_client($bad->[0]), qr/alert|no protocols available|no cipher|Cipher is \(NONE\)/i, "$bad->[1] is refused";
}
my $text = s_client('-tls1_2 -alpn http/1.1');
like $text, qr/ALPN protocol: http\/1\.1/, 'http/1.1 is chosen';
like $text, qr/Secure Renegotiation IS supported/, 'secure renegotiation is known';
like $text, qr/Compression: NONE/, 'no compression';
unlike $text, qr/TLS session ticket:/, 'no tickets';

# rubbish on the TLS port, and a handshake that never ends
for my $rubbish ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00", join '', map { chr(($_ * 7919) & 255) } 1 .. 5000) {
    my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $tls) or die;
    local $SIG{PIPE} = 'IGNORE';
    syswrite $c, $rubbish;
    shutdown $c, 1;
    sysread $c, my $back, 4096;
    unlike $back // '', qr/HTTP/, 'rubbish gets no answer of HTTP';
}

# ---- client certificates
my @with = ('--cert', pem('client'), '--key', key('client'));
($got) = curl('--cacert', pem('ca'), @with, "https://localhost:$mtls/v1/models");
like $got, qr/\n200/, 'a client with a certificate is served';
($got, $rc) = curl('--cacert', pem('ca'), "https://localhost:$mtls/v1/models");
isnt $rc, 0, 'one without is not';
($got, $rc) = curl('--cacert', pem('ca'), '--cert', pem('stranger'), '--key', key('stranger'), "https://localhost:$mtls/v1/models");
isnt $rc, 0, 'one of another authority is not';
$node->expect_log(qr/TLS for clients: no connection with/);
# With TLS 1.3 a client may be gone before the node has judged its certificate.
my $refused = qr/TLS for clients: no connection with 127\.0\.0\.1:\d+:/;
ok until_true(10, sub { $node->log_text =~ /$refused the other side has no certificate/ }), 'the log says which';
ok until_true(10, sub { $node->log_text =~ /$refused the other side's certificate is of an unknown authority/ }),
    'and the other';

# ---- changed certificates, an open connection stays
leaf('server', 'ca', 'DNS:localhost,IP:127.0.0.1,DNS:renewed');
ok until_true(10, sub { curl('--cacert', pem('ca'), "https://localhost:$tls/health"); $node->log_text =~ /changed certificates are in use/ }),
    'changed files are taken';
($got) = curl('--cacert', pem('ca'), '--resolve', "renewed:$tls:127.0.0.1", "https://renewed:$tls/health");
like $got, qr/\n200/, 'clients see the new certificate';
unlike $node->log_text, qr/PRIVATE KEY/, 'no key in the log';

# ---- upstreams: a router in front of that node
my $front = sub { my ($name, $url, $group) = @_;
    return PDPlane::Daemon->new($name, sprintf q(
load = [ "router", "openai" ];
endpoints = ( { name = "up"; type = "openai"; url = "%s"; models = [ "tiny" ]; %s } );
listen = ( { address = "127.0.0.1:%%%%PORT_%s_admin%%%%"; api = "admin"; }, { address = "127.0.0.1:%%%%PORT_%s%%%%"; api = "openai"; } );
), $url, $group, $name, $name)->start(wait => 0) };
my $ca = sprintf 'ca = "%s";', pem('ca');
my $good = $front->('good', "https://127.0.0.1:$tls", "tls = { $ca };");
ok until_true(10, sub { (get($good->api_port, '/v1/models')->{body} // '') =~ /tiny/ }), 'an https upstream is up';
is text_of(post($good->api_port, $path, $ask)), $golden[0]{text}, 'and answers with the golden text';
is text_of(post($good->api_port, $path, $ask)), $golden[0]{text}, 'again';
my $both = $front->('both', "https://localhost:$mtls", sprintf 'tls = { %s certificate = "%s"; key = "%s"; };', $ca, pem('client'), key('client'));
until_true(10, sub { ($both->metric('pdplane_router_decode_endpoints_up') // 0) == 1 });
is text_of(post($both->api_port, $path, $ask)), $golden[0]{text}, 'an upstream that wants a certificate';
for my $bad ([ 'astray', "https://127.0.0.1:$tls", sprintf('tls = { ca = "%s"; };', pem('other')), qr/is of an unknown authority/ ],
    [ 'system', "https://127.0.0.1:$tls", '', qr/is of an unknown authority/ ],
    [ 'misnamed', "https://127.0.0.1:$tls", "tls = { $ca name = \"elsewhere\"; };", qr/is for another name/ ]) {
    my ($name, $url, $group, $want) = @$bad;
    my $n = $front->($name, $url, $group);
    $n->expect_log(qr/no connection with/, qr/is down/, qr/request failed/);
    ok until_true(10, sub { $n->log_text =~ /TLS for up: no connection with 127\.0\.0\.1:$tls: the other side's certificate $want/ }), "$name: refused by name";
    isnt +(post($n->api_port, $path, $ask)->{status} // 0), 200, 'and not used';
    $n->stop;
}
$_->stop for $good, $both;
$node->stop;

# ---- links
my $link = sub { sprintf 'link = { %s connect_timeout = "2s"; };', tls_group(@_) };
my $pd = topology('1p1d', all => $link->('node', 'ca'));
for my $i (0 .. 2) {
    my ($p, $a) = @{ (greedy())[$i] };
    is text_of(post($pd->port, $p, $a)), $golden[$i]{text}, "1 + 1 nodes over TLS, golden prompt $i";
}
ok $pd->metric('prefill', 'pdplane_tls_handshakes_total') > 0, 'handshakes are counted';

# a node of another authority, and one without TLS
my $wrong = sub { my ($name, $text) = @_;
    return PDPlane::Daemon->new($name, sprintf q(
load = [ "router" ]; node = { name = "%s"; };
listen = ( { address = "127.0.0.1:%%%%PORT_%s_admin%%%%"; api = "admin"; }, { address = "127.0.0.1:%%%%PORT_%s_api%%%%"; api = "openai"; } );
peers = ( { address = "127.0.0.1:%s"; } ); %s), $name, $name, $name, $pd->{decode}[0]{conf} =~ /./ ? peer_port($pd->{decode}[0]) : 0, $text) };
sub peer_port { my ($n) = @_; return slurp($n->{conf}) =~ /127\.0\.0\.1:(\d+)"; api = "peer"/ ? $1 : 0 }
my $stranger = $wrong->('stranger', $link->('stranger', 'other'));
$stranger->start(wait => 0);
my $decode = $pd->{decode}[0];
$pd->expect_log(qr/TLS for peers: no connection with/);
$stranger->expect_log(qr/TLS for links to peers: no connection with/);
ok until_true(10, sub { $stranger->log_text =~ /TLS for links to peers: no connection with 127\.0\.0\.1:\d+: the other side's certificate is of an unknown authority/ }),
    'a node that trusts another authority says so';
ok until_true(10, sub { $decode->log_text =~ /TLS for peers: no connection with 127\.0\.0\.1:\d+: the other side refused/ }), 'and so does the one it called';
$stranger->stop;
my $naive = $wrong->('naive', '');
$naive->start(wait => 0);
ok until_true(10, sub { $decode->log_text =~ /TLS for peers: no connection with 127\.0\.0\.1:\d+: the other side does not speak TLS/ }),
    'a node without TLS is refused by name';
$naive->stop;
leaf('named', 'ca', 'URI:urn:uuid:01234567-89ab-4cde-8f01-23456789abcd');
my $named = $wrong->('named', $link->('named', 'ca'));
$decode->expect_log(qr/shows the certificate of another node/);
$named->start(wait => 0);
ok until_true(10, sub { $decode->log_text =~ /peer "named" \(127\.0\.0\.1:\d+\) shows the certificate of another node/ }),
    'a certificate that names a node is good for that node only';
$named->stop;
is text_of(post($pd->port, @{ (greedy())[0] })), $golden[0]{text}, 'the others go on';
$_->stop for @{ $pd->{nodes} };

# ---- wrong configurations
sub refused_conf {
    my ($tls, $want) = @_;
    my $conf = spew('bad.conf', sprintf qq(module_path = [ "%s" ]; load = [ "router" ];\nlisten = ( { address = "127.0.0.1:%d"; api = "openai"; %s } );\n),
        PDPlane::Daemon::modules_folder(), port('bad'), $tls);
    my $binary = $ENV{PD_BINARY} // PDPlane::Test::builddir() . '/pdplane';
    my $out = `$binary -D -c $conf 2>&1`;
    like $out, $want, "refused: $want";
    unlike $out, qr/PRIVATE|MHcC|MIG/, 'without a secret';
}
chmod 0644, key('client');
refused_conf(tls_group('client'), qr/client\.key/);
chmod 0600, key('client');
refused_conf(sprintf('tls = { certificate = "%s"; key = "%s"; };', pem('server'), key('node')), qr/does not belong to the certificate/);
refused_conf('tls = { certificate = "/nonexistent.pem"; key = "/nonexistent.key"; };', qr/nonexistent\.pem/);
refused_conf(sprintf('tls = { certificate = "%s"; };', pem('server')), qr/key/);

done_testing;
