# SPDX-License-Identifier: Apache-2.0
# Reloads of a router, a prefill and a decode node while clients stream: curl, and
# clients that keep their connection.  Every answer is compared with the one from
# before; nothing fails, no connection is cut, and memory stays.  Each reload
# changes something drawn by the seed: options, endpoints, listeners, certificates,
# engines, or it is broken and must change nothing.
#
#   PD_SEED=N       another sequence (32)
#   PD_RELOADS=N    so many (40); 1000 take five minutes
use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Certs qw(have_openssl authority leaf pem key);
use PDPlane::Daemon qw(topology until_true port);
use PDPlane::Http qw(post);
use PDPlane::Test qw(folder spew slurp pdplane);

plan skip_all => 'needs the commands openssl and curl' unless have_openssl() && `curl --version 2>&1` =~ /^curl/;

my $sanitized = (pdplane('-V'))[1] =~ /^sanitizers yes/m;
my $seed = $ENV{PD_SEED} // 32;
my $reloads = $ENV{PD_RELOADS} // 40;
diag "seed $seed, $reloads reloads" if defined $ENV{PD_SEED} || defined $ENV{PD_RELOADS};

authority('ca');
leaf('server', 'ca', 'DNS:localhost,IP:127.0.0.1');
my $tls = sprintf 'tls = { certificate = "%s"; key = "%s"; };', pem('server'), key('server');
my $s = topology('1p1d', engine => 'ms_per_token = 1.0; kv_memory = "4m";', all => 'requests = { finished = 16; };', router => <<'END');
role = { router = { retries = 2; }; };
endpoints = ( );
END
my ($router, $prefill, $decode) = ($s->{router}, $s->{prefill}[0], $s->{decode}[0]);
my @nodes = ($router, $prefill, $decode);
my $tls_port = port('tls');
my %text = map { ($_->name => slurp($_->{conf})) } @nodes;
$text{ $router->name } =~ s/listen = \( /listen = ( { address = "127.0.0.1:$tls_port"; api = "openai"; $tls }, /
    or die 'no listen';
# Files that are replaced one after the other do not fit for a moment.
$_->expect_log(qr/nothing has changed/, qr/changed certificates cannot be used/,
    qr/cannot load module/) for @nodes;

# ---- reloads ---------------------------------------------------------------------------

# reload(NODE, TEXT): takes TEXT into use; "done" or "refused".
sub reload {
    my ($node, $text) = @_;
    my $from = length $node->log_text;
    spew $node->name . '.conf', $text;
    $node->signal('HUP');
    my ($said, $end) = ('', time + 20);
    while (time < $end && $said eq '') {
        sleep 0.005;
        my $new = substr $node->log_text, $from;
        $said = $new =~ /generation \d+ is in use/ ? 'done' : $new =~ /nothing has changed/ ? 'refused' : '';
    }
    return $said;
}

my $extra = port('extra');
srand $seed; # ports are anybody's
my @changes = (
    [ $router, 'done', sub { $_[0] } ],
    [ $decode, 'done', sub { $_[0] } ],
    [ $prefill, 'done', sub { $_[0] } ],
    [ $router, 'done', sub { $_[0] =~ s/retries = \d/'retries = ' . int 1 + rand 5/er } ],
    [ $router, 'done', sub { $_[0] =~ s/threshold = \d+/'threshold = ' . int 1 + rand 3/er } ],
    [ $router, 'done', sub { $_[0] =~ s/endpoints = \( .*\);/sprintf 'endpoints = ( %s );', join ', ',
        map { qq({ name = "e$_"; type = "openai"; url = "http:\/\/127.0.0.1:1"; models = [ "m$_" ]; }) } 1 .. 1 + rand 3/er } ],
    [ $router, 'done', sub { $_[0] =~ /:$extra"/ ? $_[0] =~ s/\{ address = "127.0.0.1:$extra"; api = "openai"; \}, //r
        : $_[0] =~ s/listen = \( /listen = ( { address = "127.0.0.1:$extra"; api = "openai"; }, /r } ],
    [ $router, 'done', sub { leaf('server', 'ca', 'DNS:localhost,IP:127.0.0.1'); $_[0] } ],
    [ $decode, 'done', sub { $_[0] =~ s/ms_per_token = [\d.]+/'ms_per_token = ' . (0.8 + int(rand 8) \/ 10)/er } ],
    [ $decode, 'done', sub { $_[0] =~ s/prefill_timeout = "\d+s"/'prefill_timeout = "' . int(60 + rand 60) . 's"'/er } ],
    [ $prefill, 'done', sub { $_[0] =~ s/ms_per_token = [\d.]+/'ms_per_token = ' . (0.8 + int(rand 8) \/ 10)/er } ],
    [ $router, 'refused', sub { "$_[0]\nengin = ();\n" } ],
    [ $router, 'refused', sub { $_[0] =~ s/load = \[ /load = [ "load_fails", /r } ],
    [ $decode, 'refused', sub { $_[0] =~ s/load = \[ /load = [ "load_crashes", /r } ],
    [ $decode, 'refused', sub { $_[0] =~ s/model = "[^"]*"/model = "\/nowhere.gguf"/r } ],
    [ $prefill, 'done', sub { $_[0] =~ s/\nlink = .*\n//r . sprintf qq(\nlink = { heartbeat = "%dms"; };\n), 500 + rand 500 } ],
    [ $decode, 'done', sub { $_[0] =~ s/\nkv = .*\n//r . sprintf qq(\nkv = { lease = "%ds"; };\n), 3 + rand 4 } ],
    [ $router, 'done', sub { $_[0] =~ s/finished = \d+/'finished = ' . int 8 + rand 16/er } ],
    [ $prefill, 'refused', sub { "$_[0]\nlink = { heartbeat = \"2s\"; suspect = \"1s\"; };\n" =~ s/\nlink = .*(?=\nlink)//r } ],
    [ $prefill, 'refused', sub { $_[0] =~ s/load = \[ "prefill", "ref", "\w+"/load = [ "prefill", "ref"/r } ],
    [ $router, 'refused', sub { $_[0] =~ s/certificate = "[^"]*"/certificate = "\/nowhere.pem"/r } ],
);

# ---- clients ------------------------------------------------------------------------------

my $prompt = 'Once upon a time there was a lion, a lamp, a river, honey, a goat and a train, and the lion said that';
sub request { my ($tokens, $stream) = @_;
    return { model => 'tiny', prompt => $prompt, temperature => 0, max_tokens => $tokens,
             $stream ? (stream => JSON::PP::true) : () } }
sub events_text { my ($body) = @_;
    return undef unless $body =~ /data: \[DONE\]/;
    return join '', map { my $c = decode_json($_)->{choices}; @$c ? $c->[0]{text} : () } $body =~ /^data: (\{.*\})\r?$/mg }

my %expected;
for my $tokens (8, 120) {
    my $got = post($s->port, '/v1/completions', request($tokens, 0));
    is $got->{status}, 200, 'an answer to compare with' or diag $got->{body};
    $expected{$tokens} = decode_json($got->{body})->{choices}[0]{text};
}

# Whether an answer is complete, by its length or its last chunk.
sub is_whole {
    my ($head, $body) = split /\r\n\r\n/, $_[0], 2;
    return 0 unless defined $body;
    return $head =~ /^content-length: (\d+)\r?$/mi ? length $body >= $1 : $body =~ /(?:^|\r\n)0\r\n\r\n$/;
}

# A client that keeps its connection: one answer, or undef and why.
my $connection;
my $connects = 0;
sub ask_kept {
    my ($tokens, $stream) = @_;
    unless (defined $connection) {
        $connection = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $s->port, Timeout => 10)
            or return (undef, "connect: $!");
        $connects++;
    }
    my $body = encode_json(request($tokens, $stream));
    print {$connection} "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        . 'Content-Length: ' . length($body) . "\r\n\r\n$body";
    my $in = '';
    until (is_whole($in)) {
        next if sysread $connection, $in, 65536, length $in;
        undef $connection;
        return (undef, $in eq '' ? 'the connection was cut' : "the connection was cut behind: $in");
    }
    undef $connection if $in =~ /^connection: close\r$/mi;
    return (undef, $in) unless $in =~ m{^HTTP/1.1 200};
    return events_text($in =~ s/\r\n[0-9a-f]+\r\n/\n/gr) if $stream;
    return decode_json($in =~ s/.*?\r\n\r\n//sr)->{choices}[0]{text};
}

sub ask_curl {
    my ($tokens, @how) = @_;
    open my $out, '-|', 'curl', qw(-sSN --noproxy * -m 60 -H content-type:application/json -d),
        encode_json(request($tokens, 1)), @how or return (undef, "curl: $!");
    my $got = do { local $/; <$out> } // '';
    close $out;
    return $? == 0 ? (events_text($got), $got) : (undef, "curl ended with $?: $got");
}

my @kinds = (
    [ 'streams on one connection', 120, sub { ask_kept(120, 1) } ],
    [ 'answers on one connection', 8, sub { ask_kept(8, 0) } ],
    [ 'curl, streams', 120, sub { ask_curl(120, 'http://127.0.0.1:' . $s->port . '/v1/completions') } ],
    [ 'curl, streams over TLS', 8, sub { ask_curl(8, '--cacert', pem('ca'), "https://127.0.0.1:$tls_port/v1/completions") } ],
);
is reload($router, $text{ $router->name }), 'done', 'a listener with TLS is added';
my $stop = folder() . '/stop';
my @children;
for my $i (0 .. $#kinds) {
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        my ($n, $bad, $why) = (0, 0, '');
        until (-e $stop) {
            my ($text, $reason) = $kinds[$i][2]->();
            $n++;
            next if defined $text && $text eq $expected{ $kinds[$i][1] };
            $bad++;
            $why .= '; ' . ($reason // "another text: $text") if $bad < 5;
        }
        spew "client-$i.json", encode_json({ n => $n, bad => $bad, why => $why, connects => $connects });
        POSIX::_exit(0);
    }
    push @children, $pid;
}
END { kill 'KILL', @children if @children }

# ---- the run ----------------------------------------------------------------------------------

sub rss { my ($node) = @_; return slurp('/proc/' . $node->pid . '/status') =~ /VmRSS:\s+(\d+)/ ? $1 : 0 }
sub descriptors { my ($node) = @_; my @all = glob '/proc/' . $node->pid . '/fd/*'; return scalar @all }

my (%count, @wrong, %before);
my $warm = int $reloads / 2; # until then caches and the allocator fill up
for my $n (1 .. $reloads) {
    my $i = $n <= @changes ? $n - 1 : int rand @changes;
    my ($node, $expect, $change) = @{ $changes[$i] };
    my $text = $change->($text{ $node->name });
    my $said = reload($node, $text);
    push @wrong, "reload $n (change $i) of " . $node->name . ": $said" if $said ne $expect;
    $count{$said}++;
    $text{ $node->name } = $text if $said eq 'done';
    sleep 0.1;
    %before = map { ($_->name => rss($_)) } @nodes if $n == $warm;
    diag join ' ', $n, map { rss($_) } @nodes if defined $ENV{PD_RELOADS} && $n % 50 == 0;
}
is "@wrong", '', "$reloads reloads: " . join ', ', map { "$count{$_} $_" } sort keys %count;
spew 'stop', '';
waitpid $_, 0 for @children;
@children = ();
for my $i (0 .. $#kinds) {
    my $r = decode_json(slurp(folder() . "/client-$i.json"));
    ok $r->{n} > 0 && $r->{bad} == 0, "$kinds[$i][0]: $r->{n} answers, all as before, none failed"
        or diag "$r->{bad} bad$r->{why}";
    is $r->{connects}, 1, 'no connection was cut' if $i < 2;
}
for my $node (@nodes) {
    ok until_true(20, sub { $node->metric('pdplane_generations') == 1 }), $node->name . ': no earlier generation is left'
        or diag $node->log_text;
    my ($from, $to) = ($before{ $node->name }, rss($node));
    # An engine that changes leaves room for one or two of its copies in the allocator.
    # Sanitizers keep what was freed.
    cmp_ok $to - $from, '<', 12288, $node->name . ": memory stays ($from kB, then $to kB)" unless $sanitized;
    diag sprintf '%s: VmRSS %d kB after %d reloads, %d kB at the end, %d descriptors', $node->name, $from, $warm, $to,
        descriptors($node) if defined $ENV{PD_RELOADS};
}
cmp_ok $decode->metric('pdplane_engine_tokens_total{engine="tiny",kind="cached"}'), '>', 0, 'caches outlive reloads';
my $counted = 0;
$counted += $_->metric('pdplane_reloads_total') for @nodes;
is $counted, $reloads + 1, 'all reloads are counted';
$_->stop for reverse @nodes;
done_testing;
