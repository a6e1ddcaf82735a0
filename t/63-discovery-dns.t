# SPDX-License-Identifier: Apache-2.0
# Servers behind a name: the system's resolver, pointed at a server of DNS that
# this test plays, in namespaces of its own.
use strict;
use warnings;

use Test::More;

BEGIN {
    if (!$ENV{PD_DNS_INSIDE}) {
        my $may = system('unshare -rmn ip link set lo up >/dev/null 2>&1') == 0;
        plan skip_all => 'no namespaces of users, mounts and networks here (unshare -rmn)' unless $may;
        $ENV{PD_DNS_INSIDE} = 1;
        exec 'unshare', '-rmn', $^X, (map { "-I$_" } @INC), $0 or die $!;
    }
}

use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep);

use PDPlane::Daemon qw(until_true);
use PDPlane::FakeEngine;
use PDPlane::Test qw(folder spew slurp);
use PDPlane::Http qw(get post json_of);

my $dir = folder();
# An address beside the loopback ones, or the resolver gives none of IPv4 at all.
system('ip link set lo up && ip addr add 10.77.0.1/32 dev lo') == 0 or die 'network';
spew("$dir/resolv.conf", "nameserver 127.77.0.1\noptions timeout:1 attempts:1\n");
system("mount --bind $dir/resolv.conf /etc/resolv.conf") == 0 or die 'mount';
# A system whose names do not come from DNS cannot be tested so.
my $hosts = -e '/etc/nsswitch.conf' ? (slurp('/etc/nsswitch.conf') =~ /^hosts:(.*)/m)[0] : 'dns';
plan skip_all => "names are not looked up in DNS here (hosts:$hosts)" unless ($hosts // 'dns') =~ /\bdns\b/;

# ---- a server of DNS: what it says stands in a file, one address a line, or one word
my $dns = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.77.0.1', LocalPort => 53) or die "dns: $!";
sub zone { my ($text) = @_; spew("$dir/zone.new", $text); rename "$dir/zone.new", "$dir/zone" or die; return }
zone("127.0.0.1\n127.0.0.2\n");
my $server = fork // die;
if ($server == 0) {
    while (defined(my $from = $dns->recv(my $q, 4096))) {
        my ($id, $flags, $qd) = unpack 'n3', $q;
        my $at = 12;
        $at += 1 + ord substr $q, $at, 1 while ord substr $q, $at, 1;
        my ($type) = unpack 'n', substr $q, $at + 1, 2;
        my $question = substr $q, 12, $at + 5 - 12;
        my $zone = slurp("$dir/zone");
        next if $zone =~ /silence/;
        my $rcode = $zone =~ /nxdomain/ ? 3 : $zone =~ /servfail/ ? 2 : 0;
        my @a = $type == 1 && !$rcode ? $zone =~ /^(\d+\.\d+\.\d+\.\d+)$/mg : ();
        my @six = $type == 28 && !$rcode ? $zone =~ /^(\S*:\S*)$/mg : ();
        my $answer = join '', map({ pack('n3Nn', 0xc00c, 1, 1, 1, 4) . pack('C4', split /\./) } @a),
            map({ pack('n3Nn', 0xc00c, 28, 1, 1, 16) . Socket::inet_pton(Socket::AF_INET6(), $_) } @six);
        $dns->send(pack('n6', $id, 0x8180 | $rcode, 1, @a + @six, 0, 0) . $question . $answer, 0, $from);
    }
    POSIX::_exit(0);
}

my $plain = '{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}';
%PDPlane::FakeEngine::answers = (ok => sub { $_[1]->(PDPlane::FakeEngine::plain('200 OK', 'application/json', $plain)) });
my %e = map { $_ => PDPlane::FakeEngine->new("e$_", models => ['m'], host => "127.0.0.$_", port => 8100) } 1 .. 3;

my $router = PDPlane::Daemon->new('router', <<'END');
load = [ "router", "openai", "dns" ];
listen = ( { address = "127.0.0.1:%%PORT_api%%"; api = "openai"; },
           { address = "127.0.0.1:%%PORT_admin%%"; api = "admin"; } );
discovery = ( { name = "pool"; type = "dns"; server = "http://engines.example:8100"; interval = "100ms";
                linger = "0s"; stale_ok = "2s"; endpoint = ( { type = "openai"; } ); } );
role = { router = { probe_interval = "100ms"; }; };
END
$router->expect_log(qr/source|left out|is down|no node can take/);
$router->start;
my $api = $router->api_port;
sub status { return json_of(get($router->admin, '/status.json')->{body}) }
sub states { return join ' ', sort map { "$_->{name} $_->{state}" } @{ status()->{endpoints} } }
sub source { return status()->{sources}[0]{state} }
sub becomes { my ($want, $what) = @_; my $is; until_true(10, sub { ($is = states()) eq $want }); return is $is, $want, $what }
sub chat { return post($api, '/v1/chat/completions', { model => 'm', messages => [ { role => 'user', content => 'x' } ] })->{status} }

becomes('127.0.0.1:8100 up 127.0.0.2:8100 up', 'each address is an endpoint');
is chat(), 200, 'that answers';
zone("127.0.0.2\n127.0.0.3\n127.0.0.3\n");
becomes('127.0.0.2:8100 up 127.0.0.3:8100 up', 'addresses come and go');
my ($n, $failed) = (0, 0);
for my $turn (1 .. 20) {
    zone(join "\n", (map { "127.0.0.$_" } $turn % 2 ? (1, 2) : (2, 3)), '');
    for (1 .. 5) { $n++; $failed++ if chat() != 200 }
    sleep 0.05;
}
is $failed, 0, "none of $n requests fails meanwhile";
zone("127.0.0.1\n::1\n");
becomes('127.0.0.1:8100 up', 'a server with addresses of both families counts once');

for my $fault (qw(nxdomain servfail silence)) {
    zone("127.0.0.1\n");
    ok until_true(15, sub { source() eq 'synced' }), 'before: synced';
    becomes('127.0.0.1:8100 up', 'before: up');
    zone("$fault\n");
    ok until_true(15, sub { source() eq 'lost' }), "$fault: lost";
    is states(), '127.0.0.1:8100 up', "$fault: the addresses stay";
    is chat(), 200, "$fault: and serve";
    ok until_true(15, sub { source() eq 'given up' && states() eq '' }), "$fault: for stale_ok";
    isnt chat(), 200, "$fault: then nobody can";
}
like $router->log_text, qr/the source is lost: there is no name "engines\.example"/, 'the log tells a name that is not there';
like $router->log_text, qr/the source is lost: the resolver does not answer for "engines\.example"/, 'from a resolver that does not answer';
zone(join '', map { "127.0.1.$_\n" } 1 .. 20);
until_true(20, sub { scalar(@{ status()->{endpoints} }) == 20 });
is scalar(@{ status()->{endpoints} }), 20, 'twenty addresses are twenty endpoints';
$router->stop;
kill KILL => $server;
waitpid $server, 0;
done_testing;
