# SPDX-License-Identifier: Apache-2.0
# KV between nodes over the transport tcp, seen from the network: a relay stands
# between prefill and decode node and keeps every byte.  Pieces of KV found in
# clear text are found again in a second run, so the search can find them; with
# TLS none is.  Then who is let in: certificates, grants.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Test::More;

use PDPlane::Certs qw(have_openssl authority leaf pem key);
use PDPlane::Daemon qw(topology port until_true);
use PDPlane::Golden qw(golden greedy text_of);
use PDPlane::Http qw(post);
use PDPlane::Test qw(folder spew slurp);

plan skip_all => 'needs the command openssl' unless have_openssl();

authority($_) for qw(ca other);
leaf('node', 'ca', 'DNS:node.example');
leaf('stranger', 'other', 'DNS:node.example');

my @relays;
END { kill 'KILL', @relays if @relays }

# Forwards from one port to another; what came from the caller goes to a file.
sub relay {
    my ($from, $to, $file) = @_;
    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $from, Listen => 16, ReuseAddr => 1) or die "relay: $!";
    my $pid = fork // die "fork: $!";
    if ($pid) { push @relays, $pid; close $listen; return $pid }
    open my $keep, '>', $file or die $!;
    $keep->autoflush(1);
    my $select = IO::Select->new($listen);
    my (%other, %is_caller);
    $SIG{PIPE} = 'IGNORE';
    while (1) {
        for my $s ($select->can_read) {
            if ($s == $listen) {
                my $c = $listen->accept or next;
                my $up = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $to) or next;
                $other{$c} = $up; $other{$up} = $c; $is_caller{$c} = 1;
                $select->add($c, $up);
                next;
            }
            my $o = $other{$s} or next;
            my $n = sysread $s, my $piece, 1 << 16;
            if (!$n) {
                $select->remove($s, $o);
                delete @other{$s, $o};
                close $_ for $s, $o;
                next;
            }
            print $keep $piece if $is_caller{$s};
            for (my $at = 0; $at < $n; ) { $at += syswrite($o, $piece, $n - $at, $at) // last }
        }
    }
    POSIX::_exit(0);
}

my $tls = sprintf 'link = { tls = { certificate = "%s"; key = "%s"; ca = "%s"; }; };', pem('node'), key('node'), pem('ca');
my @golden = golden();

# One system behind a relay: what crossed it, and the system.
my $runs = 0;
sub run {
    my ($all, $mode, $prefill_mode) = @_;
    my $n = ++$runs;
    my $file = folder() . "/relay-$n";
    my $pid = relay(port("relay$n"), port("kv$n"), $file);
    my $s = topology('1p1d', transport => 'tcp', all => $all,
        decode => qq(transport = { tcp = { listen = "127.0.0.1:%%PORT_kv$n%%"; advertise = "127.0.0.1:%%PORT_relay$n%%"; lanes = 2; tls = "$mode"; }; };),
        prefill => sprintf 'transport = { tcp = { listen = "127.0.0.1:0"; lanes = 2; tls = "%s"; }; };', $prefill_mode // $mode);
    return ($s, $file);
}

sub ask_all {
    my ($s, $name) = @_;
    my @wrong = grep { text_of(post($s->port, @{ (greedy())[$_] })) ne $golden[$_]{text} } 0 .. 2;
    is scalar @wrong, 0, "$name: the golden texts";
    return;
}

# Pieces of 48 bytes out of the payload of WRITE frames, none of them dull.
sub pieces {
    my ($bytes) = @_;
    my @out;
    my $at = 0;
    while (($at = index $bytes, "PX", $at) >= 0 && @out < 200) {
        my ($type, $length) = (unpack('C', substr $bytes, $at + 3, 1), unpack('V', substr $bytes, $at + 32, 4));
        if (($type // 0) == 4 && $length > 4096) {
            for my $k (1 .. 8) {
                my $piece = substr $bytes, $at + 64 + int($length * $k / 9), 48;
                my %seen = map { $_ => 1 } unpack 'C*', $piece;
                push @out, $piece if keys %seen > 16 && length $piece == 48;
            }
        }
        $at += 2;
    }
    return @out;
}

sub found { my ($file, @pieces) = @_; my $bytes = slurp($file); return scalar grep { index($bytes, $_) >= 0 } @pieces }

# ---- clear text, twice
my ($s, $file) = run('', 'link');
ask_all($s, 'clear text');
ok $s->metric('decode', 'pdplane_decode_handovers_valid_total') > 0, 'KV was handed over';
$s->stop;
my @pieces = pieces(slurp($file));
cmp_ok scalar @pieces, '>=', 20, 'pieces of KV are seen in clear text';
($s, $file) = run('', 'link');
ask_all($s, 'clear text again');
$s->stop;
is found($file, @pieces), scalar @pieces, 'the same pieces again, so the search finds KV';

# ---- TLS
($s, $file) = run($tls, 'required');
ask_all($s, 'TLS');
ok $s->metric('decode', 'pdplane_decode_handovers_valid_total') > 0, 'KV was handed over';
cmp_ok -s $file, '>', 48 * @pieces, 'through the relay';
is found($file, @pieces), 0, 'no piece of KV is seen';
cmp_ok $s->{decode}[0]->metric('pdplane_tls_handshakes_total{listener="peers data",result="ok"}'), '>=', 2, 'a handshake for each lane';

# ---- who else calls
my $kv = port("kv$runs");
sub s_client {
    my ($input, @args) = @_;
    my $in = spew('s_client.in', $input);
    return scalar `(cat $in; sleep 1) | timeout 10 openssl s_client -connect 127.0.0.1:$kv -CAfile @{[pem('ca')]} -alpn pdplane-data -quiet @args 2>&1`;
}
my $decode = $s->{decode}[0];
$decode->expect_log(qr/TLS for data of peers: no connection with/, qr/refused a peer's greeting/);
s_client('');
ok until_true(10, sub { $decode->log_text =~ /TLS for data of peers: .* the other side has no certificate/ }), 'a caller without a certificate is refused';
s_client('', '-cert', pem('stranger'), '-key', key('stranger'));
ok until_true(10, sub { $decode->log_text =~ /TLS for data of peers: .* is of an unknown authority/ }), 'one of another authority too';
my $plain = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $kv) or die;
syswrite $plain, 'PX' . 'x' x 200;
ok until_true(10, sub { $decode->log_text =~ /TLS for data of peers: .* does not speak TLS/ }), 'one without TLS too';
unlike s_client('', '-cert', pem('node'), '-key', key('node'), '-alpn', 'pdplane'), qr/PX/, 'a certificate for the link protocol gets no word';
ask_all($s, 'after that');
$s->stop;

# ---- TLS for links alone
($s, $file) = run($tls, 'off');
ask_all($s, 'TLS for links, not for KV');
is found($file, @pieces), scalar @pieces, 'KV is seen, as was asked for';
$s->stop;

# ---- one with, one without: no KV crosses, the answers stay right
($s, $file) = run($tls, 'link', 'off');
$s->expect_log(qr/a peer wants connections with TLS, this node without/, qr/does not reach|no transport reaches|hand-over|the source gave up/);
ask_all($s, 'nodes that differ');
is $s->metric('decode', 'pdplane_decode_handovers_valid_total'), 0, 'no KV was handed over';
is -s $file, 0, 'and none was sent';
like $s->{prefill}[0]->log_text, qr/a peer wants connections with TLS, this node without/, 'the log says why';
$s->stop;

# ---- required, but not there
my $bad = PDPlane::Daemon->new('required', 'load = [ "decode", "ref", "tcp" ];
engine = ( { name = "tiny"; type = "ref"; model = "%%MODEL%%"; roles = [ "decode" ]; } );
listen = ( { address = "127.0.0.1:%%PORT_bad%%"; api = "admin"; } );
transport = { tcp = { tls = "required"; }; };');
$bad->start(wait => 0);
isnt $bad->wait_end(10), 0, 'tls = "required" without link.tls: it does not start';
like $bad->log_text, qr/required\.conf:\d+: .*tls is "required", but the node has no link\.tls/, 'and says why and where';
$bad->forget;

done_testing;
