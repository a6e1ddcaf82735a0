# SPDX-License-Identifier: Apache-2.0
# A disk that is full costs the log its lines and nothing else: nodes start, serve,
# count what was lost, and write again when there is room.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use PDPlane::Daemon qw(until_true);
use PDPlane::Golden qw(golden greedy text_of);
use PDPlane::Http qw(get post);
use PDPlane::Test qw(folder slurp);

my @golden = golden();
my ($path, $ask) = @{ (greedy())[0] };

sub one {
    my ($name, $file) = @_;
    return PDPlane::Daemon->new($name, <<"CONF");
load = [ "router", "decode", "ref" ];
engine = ( { name = "tiny"; type = "ref"; model = "%%MODEL%%"; roles = [ "decode" ]; } );
listen = ( { address = "127.0.0.1:%%PORT_${name}_admin%%"; api = "admin"; }, { address = "127.0.0.1:%%PORT_${name}_api%%"; api = "openai"; } );
log = { level = "debug"; file = "$file"; };
CONF
}

sub serves {
    my ($n, $name) = @_;
    # Each of these leaves a line in the log.
    my %long = (%$ask, prompt => 'a boat ' x 20_000);
    is scalar(grep { (post($n->api_port, $path, \%long)->{status} // 0) == 400 } 1 .. 5), 5, "$name: it refuses";
    my @texts = map { text_of(post($n->api_port, $path, $ask)) } 1 .. 5;
    is scalar(grep { defined $_ && $_ eq $golden[0]{text} } @texts), 5, "$name: it serves, with the golden text";
    return;
}

sub ends {
    my ($n, $name) = @_;
    $n->forget;
    $n->signal('TERM');
    is $n->wait_end(20), 0, "$name: it ends well" or $n->kill9;
    return;
}

# ---- from the start on: every write says that no space is left
SKIP: {
    skip 'there is no /dev/full', 5 unless -c '/dev/full';
    my $n = one('full', '/dev/full');
    $n->start;
    serves($n, 'a full disk');
    my $lost = $n->metric('pdplane_log_lost_total');
    cmp_ok $lost, '>', 3, 'each line that is lost is counted';
    is get($n->admin, '/ready')->{status}, 200, 'the node is ready';
    ends($n, 'a full disk');
}

# ---- while it runs: the file may not grow any more, and then it may again
{
    my $file = folder() . '/grows.log';
    my $n = one('grows', $file);
    $n->start;
    my $size = -s $file;
    my $pid = $n->pid;
    system 'prlimit', "--pid=$pid", "--fsize=$size:" and BAIL_OUT('prlimit');
    serves($n, 'a file at its limit');
    ok $n->is_running, 'the limit of the system does not end it';
    my $lost = $n->metric('pdplane_log_lost_total');
    cmp_ok $lost, '>', 3, 'each line that is lost is counted';
    is -s $file, $size, 'nothing is written';
    system 'prlimit', "--pid=$pid", '--fsize=unlimited:' and BAIL_OUT('prlimit');
    $lost = $n->metric('pdplane_log_lost_total');
    serves($n, 'room again');
    is $n->metric('pdplane_log_lost_total'), $lost, 'no more is lost';
    is $n->metric('pdplane_log_suppressed_total'), 0, 'none was held back';
    cmp_ok -s $file, '>', $size, 'lines are written again';
    ends($n, 'room again');
    like slurp($file), qr/stopped, nothing left open/, 'its last line is there';
}

# ---- folders without room: memory that is shared needs none of /dev/shm, only a socket
SKIP: {
    my $socket = folder() . '/sockets';
    mkdir $socket;
    my @in = ('unshare', '-m', 'sh', '-c', 'mount -t tmpfs -o size=4k,nr_inodes=1 none "$0" && shift && exec "$@"');
    skip 'no mounts of its own', 6 if $> != 0 || system(@in, '/dev/shm', 'x', 'true') != 0;
    my $all = sub {
        my ($name) = @_;
        return PDPlane::Daemon->new($name, <<"CONF");
load = [ "router", "prefill", "decode", "ref", "shm" ];
engine = ( { name = "p"; type = "ref"; model = "%%MODEL%%"; roles = [ "prefill" ]; }, { name = "d"; type = "ref"; model = "%%MODEL%%"; roles = [ "decode" ]; } );
listen = ( { address = "127.0.0.1:%%PORT_${name}_admin%%"; api = "admin"; }, { address = "127.0.0.1:%%PORT_${name}_api%%"; api = "openai"; } );
scheduler = { decider = { module = "pd_threshold"; unit = "tokens"; threshold = 1; }; };
transport = { shm = { directory = "$socket"; }; };
CONF
    };
    my $n = $all->('noshm');
    $n->start(under => [ @in, '/dev/shm', 'x' ]);
    is text_of(post($n->api_port, $path, $ask)), $golden[0]{text}, 'no room in /dev/shm: KV is handed over as ever';
    is $n->metric('pdplane_decode_handovers_valid_total'), 1, 'by shared memory';
    $n->stop;
    my $full = $all->('nosocket');
    $full->start(wait => 0, under => [ @in, $socket, 'x' ]);
    is $full->wait_end(20), 1 << 8, 'no room for its socket: it does not start' or $full->kill9;
    $full->forget;
    like $full->log_text, qr/cannot listen on "unix:\Q$socket\E.*": \S/, 'it says why';
    like $full->log_text, qr/transport\.shm\.directory, or load tcp/, 'and what to do';
}

done_testing;
