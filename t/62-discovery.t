# SPDX-License-Identifier: Apache-2.0
# Servers and nodes that come and go while a router runs, from a file that is
# edited under load: no request fails, what leaves ends its requests, and what is
# wrong with the file or its entries costs nothing but itself.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::Test qw(folder spew slurp run_program builddir);
use PDPlane::Http qw(get post open_stream json_of);

my $plain = '{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}';
%PDPlane::FakeEngine::answers = (
    ok => sub { sleep 0.02; $_[1]->(PDPlane::FakeEngine::plain('200 OK', 'application/json', $plain)) },
    slow_stream => sub { my (undef, $send) = @_;
        $send->("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        for my $i (1 .. 20) {
            $send->(PDPlane::FakeEngine::chunk(qq(data: {"choices":[{"index":0,"delta":{"content":"w$i "},"finish_reason":null}]}\n\n))) or return 0;
            sleep 0.1;
        }
        $send->(PDPlane::FakeEngine::chunk("data: [DONE]\n\n") . "0\r\n\r\n") },
);
my %e = map { $_ => PDPlane::FakeEngine->new($_, models => ['m']) } qw(a b c);
my $dir = folder();
mkdir "$dir/files" or die;
my $file = "$dir/files/pool.json";

# The text of a file that names these servers; more: what else it says of one.
sub pool {
    my ($names, %more) = @_;
    my @list = map { sprintf '{ "name": "%s", "url": "http://127.0.0.1:%d"%s }', $_, $e{$_}->port, $more{$_} // '' } @$names;
    return "{ \"endpoints\": [\n  " . join(",\n  ", @list) . "\n] }\n";
}

sub put_file { my ($path, $text) = @_; spew("$path.new", $text); rename "$path.new", $path or die $!; return }

my $router = PDPlane::Daemon->new('router', <<"END");
load = [ "router", "openai", "static", "file" ];
control = "$dir/router.sock";
listen = ( { address = "127.0.0.1:%%PORT_api%%"; api = "openai"; },
           { address = "127.0.0.1:%%PORT_admin%%"; api = "admin"; } );
discovery = (
  { name = "pool"; type = "file"; path = "files/pool.json"; interval = "50ms"; linger = "2s"; max = 5;
    endpoint = ( { type = "openai"; } ); },
  { name = "short"; type = "file"; path = "files/short.json"; interval = "50ms"; linger = "0s"; stale_ok = "3s";
    endpoint = ( { type = "openai"; } ); } );
role = { router = { probe_interval = "100ms"; }; };
END
put_file($file, pool([qw(a b c)]));
put_file("$dir/files/short.json", '{ "endpoints": [] }');
$router->start;
my $api = $router->api_port;

sub status { return json_of(get($router->admin, '/status.json')->{body}) }
sub endpoints { return { map { $_->{name} => $_ } @{ status()->{endpoints} } } }
sub states { my $all = endpoints(); return join ' ', map { "$_ $all->{$_}{state}" } sort keys %$all }
sub source { my ($name) = @_; return (grep { $_->{name} eq $name } @{ status()->{sources} })[0] }
sub becomes { my ($want, $what) = @_; my $is; until_true(10, sub { ($is = states()) eq $want }); return is $is, $want, $what }
sub chat { return post($api, '/v1/chat/completions', { model => 'm', messages => [ { role => 'user', content => 'x' } ], @_ }) }
sub served { my ($name) = @_; my @n = $e{$name}->requests; return scalar @n }
sub log_has { my ($re, $what) = @_; return ok until_true(10, sub { $router->log_text =~ $re }), $what }

becomes('a up b up c up', 'what the file names is there');
is join(' ', map { $_->{source} } values %{ endpoints() }), 'pool pool pool', 'and from where';
is chat()->{status}, 200, 'and answers';

# ---- the file is edited under load: renamed over, written in place, swapped links
mkdir "$dir/files/v$_" for 0, 1;
my $pid = fork // die $!;
if ($pid == 0) {
    my ($n, @bad) = (0);
    my $end = time + 60;
    until (-e "$dir/stop" || time > $end) {
        my $r = chat();
        $n++;
        push @bad, ($r->{status} // 'none') . ' ' . ($r->{body} // '') if ($r->{status} // 0) != 200;
    }
    spew("$dir/load", join "\n", $n, @bad);
    POSIX::_exit(0);
}
my @sets = map { [split //] } qw(ab bc ac abc a b c);
for my $turn (1 .. 42) {
    my $text = pool($sets[$turn % @sets]);
    if ($turn % 3 == 0) {
        put_file($file, $text);
    } elsif ($turn % 3 == 1) {
        unlink $file if -l $file;   # in place, so that it may be seen half written
        open my $out, '>', $file or die $!;
        syswrite $out, substr $text, 0, 20;
        sleep 0.06;
        syswrite $out, substr $text, 20;
        close $out;
    } else {
        put_file("$dir/files/v" . $turn % 2 . '/pool.json', $text);
        unlink "$dir/files/link";
        symlink 'v' . $turn % 2 . '/pool.json', "$dir/files/link" or die $!;
        rename "$dir/files/link", $file or die $!;
    }
    put_file($file, '{ "endpoints": [ { "name": ') if $turn % 10 == 0;
    sleep 0.1;
}
put_file($file, pool([qw(a b c)]));
spew("$dir/stop", '');
waitpid $pid, 0;
my ($n, @bad) = split /\n/, slurp("$dir/load");
cmp_ok $n, '>', 50, "$n requests while the file was edited 42 times";
is scalar @bad, 0, 'none of them failed' or diag "@bad[0 .. ($#bad < 4 ? $#bad : 4)]";
becomes('a up b up c up', 'and the last edit holds');
cmp_ok source('pool')->{updates_total}, '>', 20, 'the edits were seen';
ok !-e "$file.new", 'nothing else';

# ---- one that leaves ends its requests and gets no new ones
$e{c}->mode('slow_stream');
$_->forget for values %e;
put_file($file, pool(['c']));
becomes('a draining b draining c up', 'two leave');
my $s = open_stream($api, '/v1/chat/completions', '{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}');
like $s->event, qr/w1 /, 'a stream begins';
put_file($file, pool([qw(a b)]));
becomes('a up b up c draining', 'its server leaves, others are back');
$e{c}->forget;
is scalar(grep { chat()->{status} == 200 } 1 .. 10), 10, 'others answer';
is served('c'), 0, 'and not the one that leaves';
my @rest = $s->rest;
is scalar(@rest), 20, 'the stream is whole';
is $rest[-1], '[DONE]', 'to its end';
becomes('a up b up', 'then it is forgotten');
$e{c}->mode('ok');

# ---- mistakes in the file
$router->expect_log(qr/pool\.json/, qr/left out/, qr/the source /, qr/is down/);
sub broken {
    my ($text, $message) = @_;
    put_file($file, $text);
    log_has($message, "the log says: $message");
    return is states(), 'a up b up', 'and nothing changes';
}
broken("{ \"endpoints\": [\n  { \"name\": \"a\",\n    \"urll\": \"http://127.0.0.1:1\" }\n] }", qr{files/pool\.json:3: unknown member "urll"; there are name,});
broken("{ \"endpoints\": [\n  {", qr{files/pool\.json:2: expected});
broken('[]', qr{pool\.json:1: the file must hold an object});
broken('', qr{pool\.json:1: });
broken('{ "endpoints": [ { "name": "a", "url": "http://127.0.0.1:1", "weight": -1 } ] }', qr{"weight" must be a whole number up to 10000});
broken('{ "endpoints": [ { "name": "a", "address": "127.0.0.1" } ] }', qr{"address" and "port" belong together});
broken('{ "endpoints": [ { "name": "a", "url": "x", "roles": ["king"] } ] }', qr{unknown role "king"});
broken('{ "peers": [ { "name": "a", "url": "x" } ] }', qr{unknown member "url"; there are name, address});
chmod 0666, $file;
log_has(qr{everybody may write it}, 'a file that others may write is not used');
is source('pool')->{state}, 'broken', 'pdctl would say so';
cmp_ok source('pool')->{losses_total}, '>=', 1, 'it is counted';

# ---- entries that are refused, by name and reason
put_file($file, sprintf <<'END', $e{a}->port, $e{b}->port, $e{b}->port, $e{c}->port);
{ "endpoints": [
    { "name": "a", "url": "http://127.0.0.1:%d" },
    { "name": "b", "url": "http://127.0.0.1:%d", "weight": 50, "roles": "decode" },
    { "name": "twin", "url": "http://127.0.0.1:%d" },
    { "name": "meta", "url": "http://169.254.169.254:80" },
    { "name": "bad url", "url": "gopher://x" },
    { "name": "alien", "url": "http://127.0.0.1:%d", "type": "martian" } ] }
END
log_has(qr{entry "twin" is left out: its address is that of "b"}, 'the same server twice');
log_has(qr{entry "meta" is left out: its address is .*link-local}, 'an address that no server has');
log_has(qr{entry "bad url" is left out}, 'a name and an address that cannot be');
log_has(qr{entry "alien" is left out: no group "endpoint" of the source "pool" has type "martian"}, 'an unknown adapter');
is states(), 'a up b up', 'the others stay';
my $b_now = endpoints()->{b};
is "$b_now->{weight} @{ $b_now->{roles} }", '50 decode', 'and change';
is $b_now->{dispatched_total} > 0, 1, 'but are the same as before';
is source('pool')->{refused_total} >= 4, 1, 'refusals are counted';
cmp_ok $router->metric('pdplane_discovery_refused_total{source="pool",reason="invalid"}'), '>=', 2, 'in a metric too';
my ($rc, $out, $err) = run_program($ENV{PD_PDCTL} // builddir() . '/pdctl', '-s', "$dir/router.sock", 'discovery');
is $rc, 0, 'pdctl discovery' or diag $err;
like $out, qr/^pool +file +synced +\d+ +2 /m, 'shows the source';
like $out, qr/^twin +pool +server +\S+ .*refused +its address is that of/m, 'and why an entry is left out';
($rc, $out) = run_program(builddir() . '/pdctl', '-s', "$dir/router.sock", 'discovery', 'refresh');
is $rc, 0, 'refresh';
($rc, $out, $err) = run_program(builddir() . '/pdctl', '-s', "$dir/router.sock", 'discovery', 'x');
is $rc, 1, 'anything else is a mistake';

# llm-d's form of the file, and its label for roles.
put_file($file, sprintf '{ "endpoints": [ { "name": "p", "namespace": "ns", "address": "127.0.0.1", "port": "%d",
    "labels": { "llm-d.ai/role": "prefill" } }, { "name": "a", "address": "127.0.0.1", "port": %d } ] }', $e{b}->port, $e{a}->port);
until_true(10, sub { (endpoints()->{'ns/p'} // {})->{state} });
is join(' ', @{ endpoints()->{'ns/p'}{roles} // [] }), 'prefill', 'a role by label';

# ---- more than the source may name
put_file($file, sprintf '{ "endpoints": [ %s ] }', join ', ', map { qq({ "name": "n$_", "url": "http://127.0.0.1:$_" }) } 1 .. 8);
log_has(qr{left out: the source names more than its option max allows}, 'more than max');
is source('pool')->{entries}, 5, 'are not kept';

# ---- a source that is lost, or that names nothing
put_file($file, pool(['a']));
put_file("$dir/files/short.json", pool(['b']));
until_true(10, sub { (endpoints()->{b} // {})->{state} // '' eq 'up' });
unlink "$dir/files/short.json";
until_true(5, sub { source('short')->{state} eq 'lost' });
is endpoints()->{b}{state}, 'up', 'a file that is gone: its entries stay';
cmp_ok $router->metric('pdplane_discovery_state{source="short"}'), '==', 2, 'its state is a metric';
ok until_true(20, sub { !endpoints()->{b} }), 'for stale_ok';
is source('short')->{state}, 'given up', 'then they go';
put_file("$dir/files/short.json", pool(['b']));
ok until_true(10, sub { (endpoints()->{b} // {})->{state} // '' eq 'up' }), 'and come back with the file';
put_file("$dir/files/short.json", '{ "endpoints": [] }');
until_true(5, sub { source('short')->{state} eq 'empty' });
log_has(qr/names nothing any more; its 1 entries stay/, 'a file that names nothing');
ok until_true(20, sub { !endpoints()->{b} }), 'means it after stale_ok';
is source('short')->{state}, 'synced', 'not before';

put_file("$dir/files/short.json", pool(['a']));
log_has(qr{"a" is left out: source "pool" has an entry of this name}, 'two sources, one name');
put_file($file, pool(['c']));
ok until_true(10, sub { (endpoints()->{a} // {})->{source} // '' eq 'short' }), 'the other has it once the first lets go';
$router->stop;

# ---- a list in the configuration; endpoints of the configuration come first
$router = PDPlane::Daemon->new('router2', sprintf <<"END", ($e{a}->port) x 2, $e{b}->port);
load = [ "router", "openai", "static" ];
listen = ( { address = "127.0.0.1:%%%%PORT_api2%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_admin2%%%%"; api = "admin"; } );
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:%d"; } );
discovery = ( { name = "list"; type = "static"; servers = [ "http://127.0.0.1:%d", "http://127.0.0.1:%d" ];
                endpoint = ( { type = "openai"; roles = [ "decode" ]; models = [ "m" ]; } ); } );
END
$router->expect_log(qr/left out: its address is that of an endpoint of the configuration/);
$router->start;
becomes(sprintf('127.0.0.1:%d up a up', $e{b}->port), 'a list of servers');
spew('router2.conf', slurp($router->{conf}) =~ s/^endpoints = .*\n//mr);
$router->signal('HUP');
becomes(join(' ', map { "127.0.0.1:$_ up" } sort { $a cmp $b } map { $e{$_}->port } qw(a b)),
    'what was refused is used once a reload makes room for it');
$router->stop;

# ---- nodes
my $d = PDPlane::Daemon->new('decode', <<'END');
load = [ "decode", "ref" ];
node = { name = "d1"; };
listen = ( { address = "127.0.0.1:%%PORT_d1%%"; api = "peer"; } );
engine = ( { name = "tiny"; type = "ref"; model = "%%MODEL%%"; served = "m"; kv_memory = "8m"; } );
END
$d->start;
put_file("$dir/files/nodes.json", sprintf '{ "peers": [ { "name": "d1", "address": "127.0.0.1:%d" } ] }', port('d1'));
$router = PDPlane::Daemon->new('router3', <<'END');
load = [ "router", "file" ];
node = { name = "r"; };
listen = ( { address = "127.0.0.1:%%PORT_api3%%"; api = "openai"; },
           { address = "127.0.0.1:%%PORT_admin3%%"; api = "admin"; } );
discovery = ( { name = "nodes"; type = "file"; path = "files/nodes.json"; interval = "50ms"; linger = "300ms"; stale_ok = "100ms"; } );
END
$router->start;
$api = $router->api_port;
$_->expect_log(qr/source|peer|link|no node can take/) for $router, $d;
becomes('d1 up', 'a node that the file names');
is chat(max_tokens => 4)->{status}, 200, 'answers';
sub node_state { return join ' ', map { $_->{state} } grep { $_->{name} eq 'd1' } @{ status()->{nodes} } }
put_file("$dir/files/nodes.json", '{ "peers": [] }');
becomes('d1 draining', 'one that it does not name any more');
is node_state(), 'resting', 'gets no new requests';
isnt chat(max_tokens => 4)->{status}, 200, 'really';
sleep 0.5;
put_file("$dir/files/nodes.json", sprintf '{ "peers": [ { "name": "again", "address": "127.0.0.1:%d" } ] }', port('d1'));
becomes('d1 up', 'until it is named again');
is chat(max_tokens => 4)->{status}, 200, 'then it answers';
$_->stop for $router, $d;

# ---- mistakes in the section
my $conf = slurp($router->{conf}) =~ s/type = "file"; path = [^;]*; interval = "50ms";/type = "dns"; peer = "x:1"; networks = [ "10.0.0.0\/8", "10.0.0.0\/33" ];/r;
sub check { my ($text) = @_; my ($rc, $o, $e) = run_program(builddir() . '/pdplane', '-t', '-c', spew('check.conf', $text)); return "$rc $o$e" }
like check($conf =~ s/"file"/"file", "dns"/r), qr/^1 .*check\.conf:\d+: error: "10\.0\.0\.0\/33" is no network/s, 'a network that is none';
like check($conf =~ s/"file"/"file", "dns"/r =~ s/peer = "x:1"/peer = "x:1"; server = "http:\/\/x"/r), qr/one of "server" and "peer" is needed/, 'both';
like check($conf =~ s/"file"/"file", "dns"/r =~ s/"x:1"/"x"/r), qr/"x" is not understood/, 'no port';
done_testing;
