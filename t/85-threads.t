# SPDX-License-Identifier: Apache-2.0
# Threads that cannot be made: a node that needs them says so and does not start; one
# that runs goes on with those that it has, and is whole again when there may be more.
use strict;
use warnings;

use Test::More;

use PDPlane::Daemon qw(until_true);
use PDPlane::FakeEngine;
use PDPlane::Golden qw(golden greedy text_of);
use PDPlane::Http qw(get post);
use PDPlane::Test qw(srcdir);

# The limit counts all processes of a user, and none of root's: the nodes are somebody's
# of whom nothing else runs.
plan skip_all => 'only root can be another user' if $> != 0;
plan skip_all => 'needs setpriv and prlimit' if grep { system "$_ --version >/dev/null 2>&1" } qw(setpriv prlimit);
my $uid = 40_000 + $$ % 20_000;
my @as = ('setpriv', "--reuid=$uid", "--regid=$uid", '--clear-groups');
chmod 0755, PDPlane::Test::folder();
my $model = srcdir() . '/contrib/tinymodel/tiny.gguf';
plan skip_all => 'another user cannot read the files' if system(@as, 'test', '-r', $model) || system(@as, 'test', '-x', PDPlane::Test::folder());

my @golden = golden();
my ($path, $ask) = @{ (greedy())[0] };

sub one {
    my ($name, $load, $text) = @_;
    return PDPlane::Daemon->new($name, <<"CONF");
load = [ "router", "decode", "ref"$load ];
engine = ( { name = "tiny"; type = "ref"; model = "%%MODEL%%"; roles = [ "decode" ]; threads = 2; } );
listen = ( { address = "127.0.0.1:%%PORT_${name}_admin%%"; api = "admin"; }, { address = "127.0.0.1:%%PORT_${name}_api%%"; api = "openai"; } );
$text
CONF
}
sub under { return [ @as, 'prlimit', "--nproc=$_[0]:" ] }

# ---- none for computing
for my $n (1, 2) {
    my $node = one("few$n", '', '');
    $node->start(wait => 0, under => under($n));
    is $node->wait_end(20), 1 << 8, "room for $n: it does not start" or $node->kill9;
    like $node->log_text, qr/cannot start the compute threads: raise LimitNPROC=/, 'and says why and what to do';
    $node->forget;
}

# ---- none for looking up names: what needs them waits, the rest is served
{
    my $engine = PDPlane::FakeEngine->new('e', models => ['m']);
    # A name for the resolver, and no address for us.
    my $node = one('names', ', "openai"', sprintf 'endpoints = ( { name = "e"; type = "openai"; url = "http://127.1:%d"; } );
role = { router = { probe_interval = "100ms"; }; };', $engine->port);
    $node->start(under => under(3));
    is text_of(post($node->api_port, $path, $ask)), $golden[0]{text}, 'no thread for a resolver: the node serves';
    my $up = sub { $node->metric('pdplane_router_decode_endpoints_up') // 0 };
    for (1 .. 3) { is $up->(), 1, 'the endpoint with a name is down'; select undef, undef, undef, 0.15 }
    ok $node->is_running, 'and the node lives';
    my $pid = $node->pid;
    is system(@as, 'prlimit', "--pid=$pid", '--nproc=64:'), 0, 'more threads are allowed';
    ok until_true(20, sub { $up->() == 2 }), 'the name is looked up, the endpoint is up';
    is text_of(post($node->api_port, $path, $ask)), $golden[0]{text}, 'the node serves as before';
    $node->stop;
    $engine->stop;
}

done_testing;
