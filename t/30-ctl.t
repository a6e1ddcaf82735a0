# SPDX-License-Identifier: Apache-2.0
# pdctl, the control socket and the status page, against a router, a prefill and
# a decode node on loopback.
use strict;
use warnings;

use Errno qw(EAGAIN);
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(port);
use PDPlane::Test;

my $dir = folder();
my %pid;

END {
    local $?;
    kill 'TERM', values %pid;
    waitpid $_, 0 for values %pid;
}

# ---- words, without a node

sub pdctl {
    my @arguments = @_;
    my ($rc, $out, $err) = run_program(builddir() . '/pdctl', @arguments);
    diag($err) if $err =~ /Sanitizer|runtime error:/;
    return ($rc, $out, $err);
}

my ($rc, $out, $err) = pdctl('--help');
is $rc, 0, '--help';
like $out, qr/^usage: pdctl.*^commands:\n.*^examples:\n/ms, 'teaches';
my %help = $out =~ /^  ([a-z]+(?: [\[\]A-Z ]+)?) {2,}(\S.*)$/mg;

my $man = slurp(srcdir() . '/doc/man/pdctl.1.in');
my ($list) = $man =~ /^\.Sh COMMANDS\n(.*?)^\.Sh/ms;
my %page;
while ($list =~ /^\.It Ic (.*)\n(.*)$/mg) {
    my ($usage, $first) = ($1, $2);
    $usage =~ s/ Op Ar (\w+)/ [$1]/g;
    $usage =~ s/ Ar (\w+)/ $1/g;
    $page{$usage} = $first;
}
is_deeply [sort keys %page], [sort map { s/ +$//r } keys %help], 'pdctl(1) has the commands of pdctl help';
for my $usage (map { s/ +$//r } sort keys %help) {
    my ($name) = $usage =~ /^(\S+)/;
    ($rc, $out) = pdctl('help', $name);
    is $rc, 0, "help $name";
    like $out, qr/^\Q$usage\E: .*^example: pdctl \Q$name\E/ms, 'says how it is written';
}

for my $bad ([], ['sttus'], ['explain'], ['status', 'x'], ['-w', '0', 'status'], ['-w', 'x', 'status'], ['-x'], ['explain', 'a b'],
    ['-s', 'x' x 200, 'status'], ['help', 'nope']) {
    ($rc, $out, $err) = pdctl(@$bad);
    is $rc, 2, join ' ', 'usage:', map { substr $_, 0, 20 } @$bad;
}
($rc, $out, $err) = pdctl('sttus');
like $err, qr/did you mean "status"\?/, 'a slip of the finger is told';
($rc, $out, $err) = pdctl('-s', "$dir/none.sock", 'status');
is $rc, 1, 'no node';
like $err, qr/cannot reach a node at .*none\.sock: there is no such socket.*`control`.*PDPLANE_CONTROL/s, 'and what to do';

# ---- three nodes

mkdir "$dir/mods" or die;
for my $file (map { glob "$_/*.so" } module_dirs()) {
    my ($name) = $file =~ m{([^/]+)$};
    symlink $file, "$dir/mods/$name" or die "$file: $!";
}

my ($api, $admin, $p_router, $p_prefill, $p_decode, $a_decode) = map { port($_) } qw(api admin router prefill decode decode_admin);
my $model = srcdir() . '/contrib/tinymodel/tiny.gguf';
my $common = qq(module_path = "$dir/mods";\nlog = { level = "info"; };\n);
my %conf = (
    router => qq(load = [ "router" ];
        listen = ( { address = "127.0.0.1:$api"; api = "openai"; }, { address = "127.0.0.1:$admin"; api = "admin"; },
                   { address = "127.0.0.1:$p_router"; api = "peer"; } );
        peers = ( { address = "127.0.0.1:$p_prefill"; }, { address = "127.0.0.1:$p_decode"; } );),
    prefill => qq(load = [ "prefill", "ref", "tcp", "shm" ];
        listen = ( { address = "127.0.0.1:$p_prefill"; api = "peer"; } );
        engine = ( { name = "tiny"; type = "ref"; model = "$model"; roles = [ "prefill" ]; } );),
    decode => qq(load = [ "decode", "ref", "tcp", "shm" ];
        listen = ( { address = "127.0.0.1:$p_decode"; api = "peer"; }, { address = "127.0.0.1:$a_decode"; api = "admin"; } );
        engine = ( { name = "tiny"; type = "ref"; model = "$model"; roles = [ "decode" ]; } );),
);

sub start {
    my ($name) = @_;
    my $path = spew("$name.conf", qq(${common}node = { name = "$name"; };\ncontrol = "$dir/$name.sock";\n$conf{$name}\n));
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        open STDERR, '>', "$dir/$name.log" or die;
        open STDOUT, '>&', \*STDERR or die;
        exec { builddir() . '/pdplane' } 'pdplane', '-D', '-c', $path or exit 127;
    }
    $pid{$name} = $pid;
}

# Waits for a condition; the nodes do their work meanwhile.
sub until_true {
    my ($what, $check) = @_;
    my $end = time + 30;
    while (time < $end) {
        return pass $what if $check->();
        sleep 0.02;
    }
    diag slurp("$dir/$_.log") for keys %conf;
    return fail $what;
}

sub ask { my ($name, @words) = @_; return pdctl('-s', "$dir/$name.sock", @words) }
sub json {
    my ($name, @words) = @_;
    my ($rc, $out, $err) = ask($name, '--json', @words);
    return $rc == 0 ? decode_json($out) : { error => $err };
}

sub http {
    my ($port, $method, $path, $body) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5) or return '';
    $body //= '';
    print {$s} "$method $path HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        . "X-Request-Id: first-one\r\nContent-Length: ", length $body, "\r\n\r\n$body";
    local $/;
    return <$s> // '';
}

start($_) for sort keys %conf;
until_true('the router is ready', sub { -S "$dir/router.sock" && (json('router', 'status')->{node}{state} // '') eq 'ready' });
until_true('both endpoints are there', sub { @{ json('router', 'endpoints')->{endpoints} // [] } == 2 });

my $answer = http($api, 'POST', '/v1/chat/completions', encode_json({ model => 'tiny', max_tokens => 8, temperature => 0,
    messages => [{ role => 'user', content => 'Once upon a time there was a little ship that sailed over seven seas <b>' }] }));
like $answer, qr/^HTTP\/1\.1 200/, 'a request';

($rc, $out) = ask('router', 'status');
is $rc, 0, 'status';
like $out, qr/^node +router\n.*^state +ready\n.*^accepted +1\n.*^ok +1\n/ms, 'for people';
my $d = json('router', 'status');
is $d->{node}{ready}, JSON::PP::true, 'and for programs';
is_deeply $d->{node}{roles}, ['router'], 'roles';
is $d->{requests_total}{ok}, 1, 'books';
cmp_ok $d->{control}{commands}, '>', 2, 'the socket counts';

$d = json('router', 'nodes');
is_deeply [sort map { "$_->{name} $_->{state}" } @{ $d->{nodes} }], ['decode up', 'prefill up', 'router self'], 'nodes';
$d = json('router', 'endpoints');
is_deeply [sort map { "$_->{name} $_->{state} @{$_->{roles}}" } @{ $d->{endpoints} }],
    ['decode up decode', 'prefill up prefill'], 'endpoints';

$d = json('router', 'requests');
my $r = $d->{requests}[0];
is $r->{id}, 'first-one', 'requests know the client\'s id';
is $r->{decision}, 'remote', 'the decision';
cmp_ok $r->{kv_bytes}, '>', 0, 'KV was handed over';
cmp_ok $r->{digests_verified}, '>', 0, 'and verified';
like $r->{ttft_seconds}, qr/^[\d.e-]+$/, 'times are numbers';

($rc, $out) = ask('router', 'explain', 'first-one');
is $rc, 0, 'explain';
like $out, qr/^request +first-one\n.*^profile decode: .*^ +CANDIDATE +TOTAL.*^  picked decode by .*^decision .*^profile prefill: .*^  picked prefill by /ms,
    'tells every step';
$d = json('router', 'explain', '1');
is $d->{request}{id}, 'first-one', 'a number is as good as the id';
my @stages = @{ $d->{stages} };
is $stages[0]{stage}, 'accepted', 'its stages, from the first';
is $stages[-1]{stage}, 'ended', 'to the last';
is $stages[-1]{at_seconds}, $d->{request}{duration_seconds}, 'which is when it had taken its time';
my ($first) = grep { $_->{stage} eq 'first token' } @stages;
is $first->{at_seconds}, $d->{request}{ttft_seconds}, 'with the first token among them';
my $lasted = 0;
$lasted += $_->{lasted_seconds} // 0 for @stages;
cmp_ok abs($lasted - $d->{request}{duration_seconds}), '<', 1e-8, 'and nothing between them is missing';
is_deeply [map { $_->{profile} } grep { $_->{step} eq 'profile' } @{ $d->{steps} }], ['decode', 'prefill'], 'profiles in order';
my ($decode) = grep { $_->{step} eq 'profile' } @{ $d->{steps} };
my ($winner) = grep { $_->{endpoint} eq 'decode' } @{ $decode->{candidates} };
my $sum = 0;
$sum += $_->{score} * $_->{weight} for @{ $winner->{scores} };
cmp_ok abs($sum - $winner->{total}), '<', 1e-9, 'the scores add up to the total';
($rc, $out, $err) = ask('router', 'explain', 'never-seen');
is $rc, 1, 'an unknown id';
like $err, qr/no request "never-seen" is remembered here/, 'is told';

$d = json('decode', 'transfers');
is $d->{transfers}[0]{verdict}, 'valid', 'transfers of the decode node';
is $d->{transfers}[0]{request}, 'first-one', 'carry the id';
cmp_ok $d->{transfers}[0]{age_seconds}, '>', $d->{transfers}[0]{took_seconds}, 'an ended one grows older';
$d = json('decode', 'leases');
is $d->{leases}[0]{holder}, 'prefill', 'leases';
$d = json('decode', 'modules');
is_deeply [map { $_->{name} } @{ $d->{modules} }], [qw(decode ref tcp shm prometheus)], 'modules';
($rc, $out) = ask('decode', 'endpoints');
like $out, qr/^this node does not schedule/, 'no endpoints without a router';

($rc, $out) = ask('decode', 'log', 'debug', 'peer');
is $out, "log level is debug for peer now\n", 'log';
($rc, $out, $err) = ask('decode', 'log', 'loud');
is "$rc $err", "1 pdctl: LEVEL is error, warn, notice, info, debug or trace\n", 'a wrong level';
like http($api, 'POST', '/v1/chat/completions', encode_json({ model => 'tiny', max_tokens => 40,
    messages => [{ role => 'user', content => 'Hi' }] })), qr/^HTTP\/1\.1 200/, 'another request';
for my $words ([ 'slowest' ], [ '10', 'slowest' ]) {
    my @took = map { $_->{duration_seconds} } @{ json('router', 'requests', @$words)->{requests} };
    cmp_ok scalar @took, '>', 1, "requests @$words";
    is_deeply \@took, [ sort { $b <=> $a } @took ], 'come in the order of their time';
}
is scalar @{ json('router', 'requests', '1', 'slowest')->{requests} }, 1, 'COUNT holds there as well';
($rc, $out, $err) = ask('router', 'requests', '1', 'fastest');
is $rc, 1, 'any other order is an error';
like $err, qr/ORDER is newest or slowest/, 'that says what can stand there';
($rc, $out, $err) = ask('router', 'requests', '0');
is $rc, 1, 'a wrong count';

# ---- the protocol itself

sub raw {
    my ($text, $keep) = @_;
    my $s = IO::Socket::UNIX->new(Peer => "$dir/router.sock") or die "router.sock: $!";
    local $SIG{PIPE} = 'IGNORE';
    print {$s} $text;
    $s->flush;
    shutdown $s, 1 unless $keep;
    local $/;
    return <$s> // '';
}

is +(stat "$dir/router.sock")[2] & 07777, 0660, 'mode of the socket';
is raw("nope\n"), qq(error unknown command "nope", did you mean "nodes"?\n), 'an error is one line';
my $got = raw("help drain\r\n\t help   stop\nrequests --json 1\n");
like $got, qr/\Aok (\d+)\ndrain: .*ok \d+\nstop: .*ok \d+\n\{"requests".*\}\n\z/s, 'several commands on one connection';
like $got, qr/\Aok (\d+)\n(??{ ".{$1}" })ok /s, 'with the length before each body';
is raw("\n"), qq(error no command; "help" lists them\n), 'an empty line';
is raw(join(' ', 1 .. 9) . "\n"), "error a command has at most 8 words\n", 'many words';
is raw('x' x 5000, 1), "error a line has at most 1024 bytes\n", 'a line without end ends the connection';
like raw("explain \x1b[31m\n"), qr/\Aerror no request "\?\[31m" is remembered/, 'nothing for a terminal comes back';
is raw('status'), '', 'half a line is no command';
my @many = map { IO::Socket::UNIX->new(Peer => "$dir/router.sock") or die } 1 .. 40;
until_true('connections beyond the limit are closed', sub {
    grep { my $n = sysread $_, my $x, 1 if $_->blocking(0) || 1; defined $n && $n == 0 } @many;
});
@many = ();
until_true('and the others are free again', sub { my $s = json('router', 'status')->{control}; $s && $s->{open} == 1 && $s->{refused} > 0 });

# ---- the status page

my $page = http($admin, 'GET', '/status');
like $page, qr/^HTTP\/1\.1 200.*content-type: text\/html/s, '/status';
like $page, qr/content-security-policy: default-src 'none'; style-src 'sha256-[^']+'; script-src 'sha256-[^']+'; connect-src 'self'/,
    'lets only its own script run';
unlike $page =~ s/.*?\r\n\r\n//sr, qr{https?://|//[a-z]+\.|innerHTML|\son[a-z]+=}, 'loads nothing from elsewhere, makes no markup from data';
my ($json) = http($admin, 'GET', '/status.json') =~ /\r\n\r\n(.*)/s;
$d = decode_json($json);
is_deeply [sort keys %$d], [sort qw(node loop requests_total parts engines listen nodes endpoints sources requests transfers leases)],
    '/status.json has all parts';
is $d->{requests}[0]{id}, 'first-one', 'with the same rows as pdctl';
like http($admin, 'GET', '/status/explain.json?id=first%2Done'), qr/^HTTP\/1\.1 200.*"profile":"decode"/s, 'explain';
like http($admin, 'GET', '/status/explain.json?id=nope'), qr/^HTTP\/1\.1 404/, 'of an unknown id';
like http($admin, 'GET', '/status/explain.json?id=%2'), qr/^HTTP\/1\.1 400/, 'of a malformed one';

# ---- the end

($rc, $out) = ask('decode', 'drain');
is $out, "draining; the node ends when its work is done\n", 'drain';
until_true('the log says what is still open',
    sub { slurp("$dir/decode.log") =~ /draining: 0 requests, 0 leases and 0 transfers are open/ });
($rc, $out) = ask($_, 'stop') for qw(prefill router);
is $out, "stopping\n", 'stop';
for my $name (sort keys %conf) {
    waitpid delete $pid{$name}, 0;
    is $?, 0, "$name has ended well";
    ok !-e "$dir/$name.sock", 'its socket is gone';
    like slurp("$dir/$name.log"), qr/nothing left open/, 'and nothing stayed';
}
($rc, $out, $err) = ask('router', 'status');
is $rc, 1, 'nobody answers any more';

# A socket that a crash left behind is replaced.
{
    my $dead = IO::Socket::UNIX->new(Local => "$dir/decode.sock", Listen => 1) or die;
}
ok -S "$dir/decode.sock", 'a dead socket';
start('decode');
until_true('is replaced', sub { (ask('decode', 'status'))[0] == 0 }) or BAIL_OUT('the decode node is not back');
my $second = spew('second.conf', slurp("$dir/decode.conf") =~ s/127\.0\.0\.1:/127.0.0.2:/gr);
($rc, $out, $err) = pdplane('-D', '-c', $second);
is $rc, 1, 'one in use is not';
like $err, qr/cannot open the control socket .*another process listens there.*hint: /s, 'and the message helps';

done_testing;
