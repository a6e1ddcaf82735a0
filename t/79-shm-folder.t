# SPDX-License-Identifier: Apache-2.0
# The folder of the sockets of shm: what killed processes left in it goes with the next start
# and nothing else does; and what a node does when it cannot be used.
use strict;
use warnings;

use File::Temp qw(tempdir);
use Socket qw(AF_UNIX SOCK_STREAM SOMAXCONN sockaddr_un);
use Test::More;

use PDPlane::Daemon;
use PDPlane::Golden qw(golden greedy text_of);
use PDPlane::Http qw(post);
use PDPlane::Test qw(folder slurp spew pdplane);

my @golden = golden();
my ($path, $ask) = @{ (greedy())[0] };
# Short enough for the path of a socket, wherever the tests are.
my $dir = length folder() < 40 ? folder() . '/s' : tempdir('pdXXXXXX', DIR => '/tmp', CLEANUP => 1);
mkdir $dir;

# A node with everything in it: its KV goes through the transport that it has.
sub node {
    my ($name, $shm, @more) = @_;
    return PDPlane::Daemon->new($name, <<"CONF");
load = [ "router", "prefill", "decode", "ref", "shm" @{[ map { qq(, "$_") } @more ]} ];
engine = ( { name = "p"; type = "ref"; model = "%%MODEL%%"; roles = [ "prefill" ]; }, { name = "d"; type = "ref"; model = "%%MODEL%%"; roles = [ "decode" ]; } );
listen = ( { address = "127.0.0.1:%%PORT_${name}_admin%%"; api = "admin"; }, { address = "127.0.0.1:%%PORT_${name}_api%%"; api = "openai"; } );
scheduler = { decider = { module = "pd_threshold"; unit = "tokens"; threshold = 1; }; };
log = { level = "info"; };
transport = {
  shm = { $shm }; };
CONF
}

sub hands_over {
    my ($n, $transport, $name) = @_;
    is text_of(post($n->api_port, $path, $ask)), $golden[0]{text}, "$name: the golden text";
    cmp_ok $n->metric(qq(pdplane_kv_transfers_total{transport="$transport",result="valid"})) // 0, '>', 0, "$name: over $transport";
    return;
}

sub sockets { return map { s{.*/}{}r } grep { -S } glob "$dir/pdplane-shm-*" }

# A socket of that name; alive when what is returned is kept.
sub socket_at {
    my ($name, $listens) = @_;
    socket my $s, AF_UNIX, SOCK_STREAM, 0 or die $!;
    bind $s, sockaddr_un("$dir/$name") or die "$name: $!";
    listen $s, SOMAXCONN or die $! if $listens;
    return $s;
}
my $number = 0;
sub name { return sprintf 'pdplane-shm-%032x', ++$number }

# ---- what is left behind
{
    my $live = node('live', qq(directory = "$dir";))->start;
    my ($first) = sockets();
    my $gone = node('gone', qq(directory = "$dir";))->start;
    hands_over($gone, 'shm', 'before it is killed');
    my @all = sockets();
    is scalar @all, 2, 'a socket for each node';
    my ($second) = grep { $_ ne $first } @all;
    my $pid = $gone->pid;
    my @mapped = split /\n/, slurp("/proc/$pid/maps");
    my @open = map { readlink($_) // '' } glob "/proc/$pid/fd/*";
    is scalar(grep { m{/dev/shm/|/dev/mqueue|/SYSV} } @mapped, @open), 0, 'its memory has no name';
    cmp_ok scalar(grep { m{/memfd:} } @mapped), '>', 0, 'it is there nevertheless';
    $gone->kill9;
    ok -S "$dir/$second", 'a killed process leaves its socket';

    my %kept = (name() => 'bound, and does not listen yet', name() => 'alive');
    my ($early, $alive) = sort keys %kept;
    my @held = (socket_at($early), socket_at($alive, 1));
    my %other = ('pdplane-shm-12' => 'a short name', name() . '.x' => 'a longer one', 'other' => 'of something else',
        'pdplane-shm-' . 'x' x 32 => 'not a number');
    socket_at($_) for keys %other;
    my $file = name();
    spew("$dir/$file", 'no socket');
    my $foreign = name();
    socket_at($foreign);
    my $is_root = $> == 0 && chown 65534, -1, "$dir/$foreign";

    my $next = node('next', qq(directory = "$dir";))->start;
    ok !-e "$dir/$second", 'the next one that starts removes it';
    ok -S "$dir/$first", 'that of a live one stays';
    ok -S "$dir/$early", 'also when it does not listen yet';
    ok -S "$dir/$alive", 'or is some other process';
    ok -S "$dir/$_", "$other{$_} stays" for sort keys %other;
    ok -f "$dir/$file", 'and so does what is no socket';
    is !!-S "$dir/$foreign", !!$is_root, 'and that of another user';
    like $next->log_text, qr/removed \d sockets? of killed processes from \Q$dir\E$/m, 'it says so';
    hands_over($live, 'shm', 'the live one');
    hands_over($next, 'shm', 'the next one');
    $_->stop for $live, $next;
    close $_ for @held;
}

# ---- more than are looked at
{
    unlink glob "$dir/*";
    socket_at(name()) for 1 .. 300;
    my $n = node('many', qq(directory = "$dir";))->start;
    is scalar(sockets()), 300 - 256 + 1, 'it looks at 256 sockets';
    like $n->log_text, qr/looked at \d+ names and 256 sockets in/, 'and says so';
    $n->stop;
    my $m = node('more', qq(directory = "$dir";))->start;
    is scalar(sockets()), 1, 'the next one at the rest';
    $m->stop;
    is scalar(sockets()), 0, 'one that is stopped leaves none';
}

# ---- a folder that cannot be used
for my $case ([ missing => '/nonexistent/shm', 'there is no directory' ], [ useless => '/proc', undef ]) {
    my ($what, $where, $checked) = @$case;
    my $both = node("${what}_both", qq(directory = "$where";), 'tcp');
    my $place = qr/\Q$both->{conf}\E:\d+/;
    my ($rc, $out, $err) = pdplane('-t', '-c', $both->{conf});
    is $rc, 0, "$what: with another transport -t finds no mistake";
    like $err, qr/$place: warning: transport "shm" cannot be used: $checked "\Q$where\E"\n  hint: \S/, "$what: but warns" if defined $checked;
    $both->expect_log(qr/goes on without transport "shm"/, qr/transport "shm" cannot be used/);
    $both->start;
    like $both->log_text, qr/$place: goes on without transport "shm": cannot listen on "unix:\Q$where\E.*make "\Q$where\E" a folder/,
        "$what: the start says where, why and what to do";
    hands_over($both, 'tcp', $what);
    $both->stop;

    my $alone = node("${what}_alone", qq(directory = "$where";));
    ($rc, $out, $err) = pdplane('-t', '-c', $alone->{conf});
    is $rc, defined $checked ? 1 : 0, "$what: alone, -t";
    like $err, qr/\Q$alone->{conf}\E:\d+: error: $checked "\Q$where\E"\n  hint: \S/, "$what: says so" if defined $checked;
    $alone->start(wait => 0);
    is $alone->wait_end(20), 1 << 8, "$what: it does not start" or $alone->kill9;
    $alone->forget;
    like $alone->log_text, qr/\Q$alone->{conf}\E:\d+: error: .*"(?:unix:)?\Q$where\E/, "$what: and says where and why";
    like $alone->log_text, qr/hint: .*transport\.shm\.directory/, "$what: and what to do";
}
{
    my $n = node('long', 'directory = "/' . 'x' x 60 . '";', 'tcp');
    my ($rc, $out, $err) = pdplane('-t', '-c', $n->{conf});
    is $rc, 1, 'a name that is too long is a mistake, whatever else is loaded' or diag $out, $err;
    like $err, qr/\Q$n->{conf}\E:\d+: error: directory has more than 60 bytes.*\n  hint: \S/, 'which is named';
}
{
    local $ENV{XDG_RUNTIME_DIR} = '/nonexistent';
    my $n = node('fallback', '')->start;
    hands_over($n, 'shm', 'a folder of the session that is not there');
    $n->stop;
}

done_testing;
