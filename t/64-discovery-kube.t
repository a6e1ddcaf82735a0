# SPDX-License-Identifier: Apache-2.0
# Servers of a cluster: lists in pages, watches that are cut, expire or say
# nonsense, an API server that is away, tokens that change.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Certs;
use PDPlane::Daemon qw(port until_true);
use PDPlane::FakeEngine;
use PDPlane::FakeKube;
use PDPlane::Test qw(folder spew slurp);
use PDPlane::Http qw(get post json_of);

my $plain = '{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}';
%PDPlane::FakeEngine::answers = (ok => sub { $_[1]->(PDPlane::FakeEngine::plain('200 OK', 'application/json', $plain)) });
my $port = port('engines');
my %e = map { $_ => PDPlane::FakeEngine->new("e$_", models => ['m'], host => "127.0.0.$_", port => $port) } 1 .. 3;
my $dir = folder() . '/kube';
my $kube = PDPlane::FakeKube->new($dir);
sub set { PDPlane::FakeKube::set($dir, [@_], port => $port, labels => { 'llm-d.ai/role' => 'decode' }); return }
sub mode { PDPlane::FakeKube::mode($dir, $_[0]); return }

set(1, 2);
my $conf = sprintf <<'END', $kube->port, folder();
load = [ "router", "openai", "kube" ];
listen = ( { address = "127.0.0.1:%%%%PORT_api%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; } );
discovery = ( { name = "pods"; type = "kube"; service = "vllm"; namespace = "llm"; port = "http"; linger = "0s"; stale_ok = "3s";
                api = "http://127.0.0.1:%d"; token_file = "%s/kube/token"; endpoint = ( { type = "openai"; } ); } );
role = { router = { probe_interval = "100ms"; }; };
END
my $router = PDPlane::Daemon->new('router', $conf);
$router->expect_log(qr/source|left out|is down|no node can take/);
$router->start;
my $api = $router->api_port;
sub status { return json_of(get($router->admin, '/status.json')->{body}) }
sub states { return join ' ', sort map { "$_->{name} $_->{state}" } @{ status()->{endpoints} } }
sub source { return status()->{sources}[0] }
sub becomes { my ($want, $what) = @_; my $is; until_true(15, sub { ($is = states()) eq $want }); return is $is, $want, $what }
sub source_becomes { my ($want, $what) = @_; my $is; until_true(15, sub { ($is = source()->{state}) eq $want }); return is $is, $want, $what }
sub chat { return post($api, '/v1/chat/completions', { model => 'm', messages => [ { role => 'user', content => 'x' } ] })->{status} }
sub lists { my @l = grep { !/watch=1/ } $kube->requests; return scalar @l }

becomes('pod-1 up pod-2 up', 'the ready endpoints of a service');
is chat(), 200, 'answer';
is join(' ', map { "@{ $_->{roles} }" } @{ status()->{endpoints} }), 'decode decode', 'roles by a label of the service';
my @r = $kube->requests;
is $r[0], '/apis/discovery.k8s.io/v1/namespaces/llm/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dvllm&limit=250', 'a list';
like $r[1], qr/&limit=250&continue=1$/, 'in pages';
like $r[2], qr/&watch=1&allowWatchBookmarks=true&timeoutSeconds=240&resourceVersion=\d+$/, 'then a watch';

# ---- changes come by the watch, without another list
my $before = lists();
set(1, 2, 3);
becomes('pod-1 up pod-2 up pod-3 up', 'one more');
set(3);
becomes('pod-3 up', 'two less');
# One stays all the time: a new one takes nothing before its probe has answered.
set(1, 2, 3);
becomes('pod-1 up pod-2 up pod-3 up', 'all of them');
my ($n, $failed) = (0, 0);
for my $turn (1 .. 30) {
    set($turn % 2 ? (1, 2) : (2, 3));
    for (1 .. 3) { $n++; $failed++ if chat() != 200 }
}
is $failed, 0, "none of $n requests fails while pods come and go";
# A change that was none of those before: what they led to may still be on its way.
set(1, 3);
becomes('pod-1 up pod-3 up', 'the last change holds');
is lists(), $before, 'all of it by one watch';
PDPlane::FakeKube::objects($dir, { odd => do { my $s = PDPlane::FakeKube::slice('odd', [ 1, 3 ], port => $port);
    $s->{endpoints}[1]{conditions}{ready} = JSON::PP::false; $s }, even => PDPlane::FakeKube::slice('even', [2], port => $port) });
becomes('pod-1 up pod-2 up', 'what is not ready does not count');
sleep 0.3;
is states(), 'pod-1 up pod-2 up', 'nor does it later';
my $synced = source()->{synced_seconds};
ok $synced < 1, 'bookmarks keep it current';

# ---- a connection that is cut: the watch goes on where it was
mode('cut');
until_true(10, sub { source()->{state} eq 'lost' });
set(2, 3);
mode('ok');
becomes('pod-2 up pod-3 up', 'a watch that was cut: what happened meanwhile');
is lists(), $before, 'without a list';

# ---- versions that are too old: a list
PDPlane::FakeKube::forget($dir);
set(1);
becomes('pod-1 up', 'a version that is too old (410)');
ok lists() > $before, 'a list again';
$before = lists();
mode('expire');
until_true(10, sub { lists() > $before + 1 });
ok lists() > $before, 'a watch that ends with an error: a list again';
$kube->forget_requests;
sleep 1.5;
cmp_ok scalar(() = $kube->requests), '<', 40, 'when each one does, lists come with a pause';
$before = lists();
mode('ok');
mode('garbage');
until_true(10, sub { lists() > $before + 2 });
mode('ok');
set(1, 2);
becomes('pod-1 up pod-2 up', 'events that are none: a list again');
unlike states(), qr/draining/, 'nothing was taken away meanwhile';

# ---- an API server that is away, or refuses
mode('lose');
source_becomes('lost', 'an API server that answers 503');
is states(), 'pod-1 up pod-2 up', 'its endpoints stay';
$kube->forget_requests;
sleep 1.5;
cmp_ok scalar(my @tries = $kube->requests), '<', 12, 'it is asked less and less often';
becomes('', 'for stale_ok');
set(2);
mode('ok');
becomes('pod-2 up', 'and come back with it');
for ([ refuse => qr/the API server does not know the token \(401\)/ ], [ forbid => qr/the account may not get, list and watch endpointslices in namespace llm \(403\)/ ]) {
    mode('cut');
    sleep 0.3;
    mode($_->[0]);
    ok until_true(15, sub { source()->{reason} =~ $_->[1] }), "$_->[0]: says why";
    mode('ok');
    source_becomes('synced', 'then it may again');
}
spew("$dir/token", "another\n", 0600);
mode('cut');
sleep 0.3;
mode('ok');
set(1, 2);
becomes('pod-1 up pod-2 up', 'a token that has changed is read again');
unlike $router->log_text, qr/sesame|another/, 'no token in the log';
$router->stop;

# ---- pods by labels
sub pod {
    my ($i, %o) = @_;
    return { metadata => { name => "p$i", uid => "u$i", labels => { app => 'vllm', 'llm-d.ai/role' => $o{role} // 'both' } },
        status => { podIP => "127.0.0.$i", phase => 'Running', conditions => [ { type => 'Ready', status => $o{ready} // 'True' } ] } };
}
PDPlane::FakeKube::objects($dir, { 1 => pod(1, role => 'prefill'), 2 => pod(2), 3 => pod(3, ready => 'False') });
$router = PDPlane::Daemon->new('router2', $conf =~ s/service = "vllm";/selector = "app=vllm,tier in (a)";/r =~ s/port = "http"/port = "$port"/r
    =~ s/PORT_(api|admin)/PORT_${1}2/gr);
$router->expect_log(qr/source|is down/);
$kube->forget_requests;
$router->start;
becomes('p1 up p2 up', 'ready pods');
is join(' ', map { "$_->{name} @{ $_->{roles} }" } sort { $a->{name} cmp $b->{name} } @{ status()->{endpoints} }), 'p1 prefill p2 prefill decode', 'roles by their labels';
like +($kube->requests)[0], qr{^/api/v1/namespaces/llm/pods\?labelSelector=app%3Dvllm%2Ctier%20in%20%28a%29&limit=250$}, 'what is asked for';
my $gone = pod(2);
$gone->{metadata}{deletionTimestamp} = '2026-01-01T00:00:00Z';
PDPlane::FakeKube::objects($dir, { 1 => pod(1), 2 => $gone, 3 => pod(3) });
becomes('p1 up p3 up', 'one that ends, one that is ready now');
$router->stop;

# ---- TLS: the API server's certificate is verified
SKIP: {
    skip 'no openssl 3', 3 unless PDPlane::Certs::have_openssl();
    PDPlane::Certs::authority($_) for 'ca', 'other';
    PDPlane::Certs::leaf('server', 'ca', 'IP:127.0.0.1');
    my $web = folder() . '/web';
    my $path = 'apis/discovery.k8s.io/v1/namespaces/llm';
    my $at = $web;
    mkdir $at;
    for (split /\//, $path) { $at .= "/$_"; mkdir $at }
    my $body = JSON::PP->new->encode({ metadata => { resourceVersion => '5' }, items => [ PDPlane::FakeKube::slice('s', [1], port => $port) ] });
    spew("web/$path/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dvllm&limit=250",
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: " . length($body) . "\r\n\r\n$body");
    my $tls = port('tls');
    my $pid = fork // die;
    if ($pid == 0) {
        chdir $web or POSIX::_exit(1);
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null';
        exec 'openssl', 's_server', '-accept', "127.0.0.1:$tls", '-cert', PDPlane::Certs::pem('server'), '-key', PDPlane::Certs::key('server'), '-HTTP', '-quiet' or POSIX::_exit(1);
    }
    for my $ca (qw(ca other)) {
        $router = PDPlane::Daemon->new("tls-$ca", $conf =~ s/api = "[^"]*127[^"]*";( token)/api = "https:\/\/127.0.0.1:$tls"; ca_file = "@{[PDPlane::Certs::pem($ca)]}";$1/r
            =~ s/PORT_(api|admin)/PORT_${1}_$ca/gr);
        $router->expect_log(qr/source|is down|tls|certificate|TLS/);
        $router->start(wait => $ca eq 'ca' ? 20 : 0);
        if ($ca eq 'ca') {
            becomes('pod-1 up', 'over TLS');
        } else {
            ok until_true(10, sub { $router->log_text =~ /the source cannot be read: the API server at 127/ }), 'an authority that is not the right one';
            unlike $router->log_text, qr/the source names/, 'nothing is taken from it';
        }
        $router->stop;
    }
    kill KILL => $pid;
    waitpid $pid, 0;
}
done_testing;
