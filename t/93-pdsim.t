# SPDX-License-Identifier: Apache-2.0
# pdsim: help and page agree; the same seed gives the same bytes; what must follow
# from a change follows; one server is what queueing theory says of it; input that
# is wrong is refused with its place.
use strict;
use warnings;

use Test::More;
use JSON::PP;

use PDPlane::Test qw(builddir srcdir folder slurp spew run_program module_folder);

my $pdsim = builddir() . '/pdsim';
my $page = slurp(srcdir() . '/doc/man/pdsim.1.in');

my $modules = module_folder();

sub conf {
    my ($name, $load, @endpoints) = @_;
    my $list = join ', ', map { "{ $_ }" } @endpoints;
    return spew($name, <<"END");
module_path = [ "$modules" ];
load = [ $load ];
listen = ( { address = "192.0.2.1:8000"; api = "openai"; api_keys_file = "/not/there"; } );
control = "/not/there/control";
role = { router = { deadline = "1h"; }; };
endpoints = ( $list );
END
}
my @two = map { qq(name = "d$_"; type = "vllm"; url = "https://server$_.example:8443"; api_key_file = "none";) } 0, 1;
my $router = conf('router.conf', '"router", "vllm"', @two);

sub pdsim { return run_program($pdsim, @_) }
sub runs {
    my ($rc, $out, $err) = pdsim('--json', @_);
    is "$rc$err", '0', "pdsim @_";
    my $r = $rc == 0 ? decode_json($out) : { runs => [] };
    return @{ $r->{runs} };
}

subtest 'what it says of itself' => sub {
    my ($rc, $out, $err) = pdsim('--help');
    is $rc, 0, '--help';
    like $out, qr/^usage: pdsim .*^examples:\n/ms, 'teaches';
    my @help = $out =~ /^  (?:-\w, |    )--([\w-]+)/mg;
    my @man = $page =~ /^\.It (?:Fl \w , -|Fl -)([\w-]+)/mg;
    is_deeply \@man, \@help, 'pdsim(1) has the options of --help';
    ($rc, $out) = pdsim('-V');
    like "$rc $out", qr/^0 pdsim \d/, '-V';
    ($rc, $out) = pdsim('-O');
    my @rows = $out =~ /^(\w+)  \(/mg;
    cmp_ok scalar @rows, '>', 8, '-O: what can be said of servers';
    my $built = slurp(builddir() . '/doc/man/pdsim.1');
    is_deeply [grep { $built !~ /^\.It .*\b\Q$_\E\b/m } @rows], [], 'pdsim(1) has all of it';
};

subtest 'wrong input' => sub {
    SKIP: {
        skip 'there is no /dev/full', 2 unless -c '/dev/full';
        for my $args ('--help', "-c '$router' --rate 9 -n 2 -o 2") {
            my ($rc, undef, $err) = run_program('sh', '-c', "exec '$pdsim' $args >/dev/full");
            like "$rc $err", qr/^1 pdsim: cannot write: /, "nothing can be written: $args";
        }
    }
    for my $bad ([], ['-c', $router], ['-c', $router, '--rate', 'x'], ['-c', $router, '--rate', 1, '--trace', 'x'],
                 ['-c', $router, '--rate', 1, '-a', 'poison'], ['--rate', 1, '--kill', 'd0'], ['--rate', 1, 'x'],
                 ['--rate', 1, '--slow', 'd0@5s'], ['--rate', 1, '--ttft', '5'], ['--mdoc'], ['--rate', 1, '-g', 'x']) {
        my ($rc, $out, $err) = pdsim(@$bad);
        is $rc, 2, "usage: @$bad";
        isnt $err, '', 'says why';
    }
    my (undef, undef, $near) = pdsim('-c', $router, '--rate', 1, '-a', 'poison');
    like $near, qr/did you mean "poisson"/, 'the nearest word';
    my $classes = spew("classes", qq(servers = (\n  { slots = 4;\n    prefil_tokens_per_s = 5.0; } );\n));
    my $trace = spew('trace', qq({"timestamp":0,"input_length":10,"output_length":2}\n{"timestamp":5}\n));
    my $plain = spew('plain.conf', qq(module_path = [ "$modules" ];\nload = [ "router", "openai" ];\n));
    my $peers = spew('peers.conf', qq(module_path = [ "$modules" ];\nload = [ "router" ];\n) .
                                   qq(peers = ( { address = "127.0.0.1:1"; } );\n));
    my $url = conf('url.conf', '"router", "openai"', 'name = "a"; type = "openai"; url = "ftp://x";');
    my $no_router = spew('node.conf', qq(module_path = [ "$modules" ];\nload = [ "openai" ];\nendpoints = ( ) ;\n));
    for my $bad ([qr{^\Q$classes\E:3: error: unknown option "prefil_tokens_per_s".*prefill_tokens_per_s}s, $router, '-P', $classes],
                 [qr{^\Q$trace\E:2: error: }, $router, '-A', $trace],
                 [qr{plain\.conf.*there is no endpoint.*hint: }s, $plain],
                 [qr{peers\.conf:3: error: .*hint: }s, $peers],
                 [qr{url\.conf:6: error: "ftp://x" is no URL.*hint: }s, $url],
                 [qr{node\.conf.*error: }s, $no_router],
                 [qr{gone\.conf}, folder() . '/gone.conf'],
                 [qr{^--set:1: error: unknown option "piker"}, $router, '-s', 'scheduler.piker = 1'],
                 [qr{^--set:1: error: .*hint: }s, $router, '-s', 'endpoints'],
                 [qr{^--set:1: error: .*no list "nothing"}, $router, '-s', 'nothing x3'],
                 [qr{^--set:1: error: .*hint: }s, $router, '-s', 'endpoints.d7.weight = 3'],
                 [qr{^--server:1: error: .*slots}, $router, '-e', 'slots = "many"'],
                 [qr{no endpoint "x0"}, $router, '--kill', 'x0@5s']) {
        my ($message, $file, @more) = @$bad;
        my @traffic = grep({ $_ eq '-A' } @more) ? () : ('--rate', 1, '-n', 3);
        my ($rc, $out, $err) = pdsim('-c', $file, @traffic, @more);
        is "$rc$out", '1', "refused: @more" or diag $err;
        like $err, $message, 'with place and remedy';
    }
};

subtest 'seeds' => sub {
    my @a = ('-c', $router, '--rate', 20, '-n', 150, '-o', 20, '-L', 'exponential', '--jitter', '1ms');
    my (undef, $first, $err) = pdsim(@a, '--seed', 7);
    my (undef, $same) = pdsim(@a, '--seed', 7);
    my (undef, $other) = pdsim(@a, '--seed', 8);
    is $err, '', 'nothing on standard error';
    like $first, qr/^150 requests in .*: 150 ok, 0 failed$/m, 'all are answered';
    is $same, $first, 'the same seed, the same bytes';
    isnt $other, $first, 'another seed, other bytes';
    my (undef, $json) = pdsim(@a, '--seed', 7, '--json');
    my (undef, $again) = pdsim(@a, '--seed', 7, '--json');
    is $again, $json, 'the same JSON';
};

subtest 'twice the endpoints' => sub {
    my ($one, $two) = runs('-c', $router, '--rate', 40, '-n', 400, '-i', 1000, '-o', 10, '--ttft', '500ms', '-s', 'endpoints x2');
    is scalar @{ $two->{servers} }, 4, 'four of them';
    is_deeply [map { $_->{endpoint} } @{ $two->{servers} }], [qw(d0 d1 d0-2 d1-2)], 'each has a name';
    cmp_ok $two->{ttft}{p50} * 2, '<', $one->{ttft}{p50}, 'the first token comes much earlier';
    cmp_ok $two->{good}, '>', $one->{good}, 'more are good';
    is scalar(grep { $_->{requests} > 40 } @{ $two->{servers} }), 4, 'all of them work';
    my ($eight) = runs('-c', $router, '--rate', 1, '-n', 4, '-o', 2, '-S', 'endpoints x2; endpoints x2', '-S', 'endpoints.d0.weight = 7');
    my %names = map { $_->{endpoint} => 1 } @{ $eight->{servers} };
    is scalar keys %names, 8, 'also twice';
    my (undef, $out) = pdsim('-c', $router, '--rate', 40, '-n', 100, '-o', 5, '-s', 'endpoints x2', '-q');
    like $out, qr/^\[2\] \Q$router\E with endpoints x2\n.*^endpoints +2 +4 +\+2$/ms, 'a table with the difference';
};

subtest 'faults' => sub {
    my @a = ('-c', $router, '--rate', 20, '-n', 400, '-o', 40);
    my ($whole) = runs(@a);
    my ($killed) = runs(@a, '--kill', 'd1@5s');
    my ($back) = runs(@a, '--kill', 'd?@5s+2s');
    my ($slow) = runs(@a, '--slow', 'd*=3@0s');
    is $whole->{failed}, 0, 'without: nothing fails';
    cmp_ok $killed->{errors}{error_event}, '>', 0, 'a server that dies breaks answers off';
    cmp_ok $killed->{servers}[1]{gone}, '>', 0, 'as its line says';
    cmp_ok $killed->{servers}[0]{requests}, '>', 280, 'the other one gets the rest';
    cmp_ok $back->{failed}, '>', $killed->{failed}, 'all dead: more fail';
    cmp_ok $back->{ok}, '>', 200, 'once they are back, requests are answered again';
    cmp_ok $slow->{itl}{p50}, '>', 2 * $whole->{itl}{p50}, 'slow ones are slow';
};

subtest 'prefixes' => sub {
    my $random = conf('random.conf', '"router", "vllm", "random"', @two);
    my @a = ('--rate', 20, '-n', 600, '-i', 200, '-o', 5, '-g', '4096:40', '-e', 'kv_tokens = 120000');
    my @set = ('-s', 'endpoints x2; scheduler.profiles = ( { name = "decode"; filter = [ "role", "health" ]; score = (); ' .
               'pick = "random"; } )', '-s', 'endpoints x2');
    my (undef, $blind, $usual) = runs('-c', $random, @a, @set);
    cmp_ok $usual->{cached_share}, '>', $blind->{cached_share} + 0.1, 'more of the prompts come from caches';
    cmp_ok $usual->{ttft}{mean}, '<', $blind->{ttft}{mean}, 'and the first token comes earlier';
    my ($off) = runs('-c', $router, '--rate', 20, '-n', 50, '-o', 5, '-g', '4096:1', '-e', 'prefix_cache = false');
    is $off->{cached_share}, 0, 'a server without a cache has none';
};

subtest 'prefill and decode apart' => sub {
    my @roles = ('roles = [ "prefill" ];', 'roles = [ "decode" ];');
    my $vllm = conf('vllm.conf', '"router", "vllm"', map {
        qq(name = "s$_"; type = "vllm"; url = "http://10.9.9.$_:8000"; connector = "nixl"; $roles[$_]) } 0, 1);
    my $sglang = conf('sglang.conf', '"router", "sglang"', map {
        qq(name = "s$_"; type = "sglang"; url = "http://10.9.9.$_:8000"; $roles[$_]) } 0, 1);
    for my $r (runs('-c', $vllm, '-c', $sglang, '--rate', 5, '-n', 60, '-o', 20)) {
        is $r->{ok}, 60, "$r->{label}: all are answered";
        is $r->{servers}[0]{prompt_tokens}, 60_000, 'one computes the prompts';
        is $r->{servers}[1]{prompt_tokens}, 0, 'the other none';
        is $r->{servers}[1]{output_tokens}, 1200, 'but the answers';
    }
    my ($dead) = runs('-c', $vllm, '--rate', 5, '-n', 60, '-o', 20, '--kill', 's0@5s');
    is $dead->{ok}, 60, 'without the prefill server all are answered, too';
    cmp_ok $dead->{servers}[1]{prompt_tokens}, '>', 0, 'by the other';
};

subtest 'the model' => sub {
    my $one = conf('alone.conf', '"router", "openai"', 'name = "a"; type = "openai"; url = "http://a:80";');
    my @a = ('-c', $one, '--rate', 0.1, '-n', 4, '-i', 1000, '-o', 11, '--latency', '1ms', '-e');
    my ($r) = runs(@a, 'step = "20ms"; per_sequence = "5ms"; prefill_tokens_per_s = 2000.0');
    # A step with the prompt, and four ways through the network: 20 + 1000 / 2 + 4 ms.
    cmp_ok abs($r->{ttft}{min} - 0.524), '<', 0.003, 'the first token';
    cmp_ok abs($r->{itl}{min} - 0.025), '<', 0.0001, 'the others';
    is $r->{servers}[0]{steps}, 44, 'one step for each token';
    ($r) = runs(@a, 'step = "20ms"; step_tokens = 100; prefill_tokens_per_s = 2000.0');
    is $r->{servers}[0]{steps}, 80, 'a long prompt takes several';
    ($r) = runs(@a, 'kv_tokens = 1000');
    is $r->{errors}{'4xx'}, 4, 'what has no room is refused';
    my ($shed) = runs('-c', $one, '--rate', 1000, '-n', 200, '-S', 'limits = { connections = 20; }');
    cmp_ok $shed->{failed}, '>=', 100, 'limits of the configuration hold';
};

# One server, one slot, no cost but that of the prompt: the router and the network are
# a queue before a server with constant (M/D/1) or exponential (M/M/1) times, for which
# the mean wait is known: W = u s / (2 (1 - u)) and u s / (1 - u).
subtest 'queueing theory' => sub {
    my $one = conf('one.conf', '"router", "openai"', 'name = "a"; type = "openai"; url = "http://a:80";');
    my $service = 0.1;
    my @a = ('-c', $one, '-n', 40_000, '-i', 1000, '-o', 1, '--warmup', '60s', '--latency', '1us', '-e', 'slots = 1; ' .
             'step = "0"; per_sequence = "0"; prefix_cache = false; step_tokens = 1000000; prefill_tokens_per_s = 10000.0');
    for my $case ([0.5, 'fixed', 2, 0.04], [0.7, 'fixed', 2, 0.05], [0.5, 'exponential', 1, 0.06]) {
        my ($load, $lengths, $divisor, $tolerance) = @$case;
        my ($r) = runs(@a, '--rate', $load / $service, '-L', $lengths);
        my $wait = $load * $service / ($divisor * (1 - $load));
        my $got = $r->{ttft}{mean} - $service;
        cmp_ok abs($got / $wait - 1), '<', $tolerance,
            sprintf 'load %.1f, %s: a mean wait of %.1f ms, in theory %.1f ms', $load, $lengths, 1e3 * $got, 1e3 * $wait;
    }
};

subtest 'a trace' => sub {
    my $trace = spew('good.jsonl', join '', map {
        qq({"timestamp":${\ ($_ * 100)},"input_length":1200,"output_length":6,"hash_ids":[1,2,${\ ($_ + 10)}]}\n) } 0 .. 49);
    my ($r, $fast) = (runs('-c', $router, '-A', $trace), runs('-c', $router, '-A', $trace, '-X', 10, '--whole'));
    is $r->{ok}, 50, 'all of it';
    is $r->{tokens_per_second} > 50 && $r->{tokens_per_second} < 70 ? 1 : 0, 1, 'at its times';
    cmp_ok $r->{cached_share}, '>', 0.5, 'prefixes are shared';
    cmp_ok $fast->{seconds} * 2, '<', $r->{seconds}, 'ten times as fast';
    is $fast->{itl}{count}, 0, 'answers that are no streams';
};

done_testing;
