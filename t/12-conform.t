# SPDX-License-Identifier: Apache-2.0
# pdconform passes our own modules, and finds what is wrong in modules that are
# broken on purpose: one process of it for each.
#
# PD_TEST_SHORT=1 takes the modules whose work is done by several threads: for a build
# with the thread sanitizer.
use strict;
use warnings;

use POSIX ();
use Test::More;

use PDPlane::FakeKube;
use PDPlane::Test;

my $kit = $ENV{PD_CONFORM} // builddir() . '/pdconform';
my $dir = test_module_dir();
plan skip_all => 'pdconform is not built' unless -x $kit;
plan skip_all => 'test modules are not built' unless -e "$dir/broken_sched.so";

# The build folder may be writable for others, where loading is refused.
my $modules = folder() . '/modules';
mkdir $modules, 0755 or die;
my %so;
for my $file (map { glob "$_/*.so" } module_dirs(), $dir) {
    my ($name) = $file =~ m{([^/]+)\.so$};
    $so{$name} = $file;
    symlink $file, "$modules/$name.so";
}
my $model = srcdir() . '/contrib/tinymodel/tiny.gguf';
my $tcp = 'listen = "0.0.0.0:0"; timeout = "1s";';
# One that is slow to begin is not gone: libfabric maps 17 MB for each way, which takes its time on a busy machine.
my $fabric = 'listen = "127.0.0.1:0"; timeout = "3s"; connect_timeout = "30s";';
my $shm = sprintf 'directory = "%s"; timeout = "1s";', length folder() < 40 ? folder() : '/tmp';

# conform(MODULE, CONFIGURATION, CASE): exit status and output.
sub conform {
    my ($name, $text, $case, @more) = @_;
    local $ENV{PD_TEST} = $case if defined $case;
    delete local $ENV{PD_TEST} unless defined $case;
    my @conf = defined $text ? ('-c', spew("$name.conf", $text)) : ();
    my ($rc, $out, $err) = run_program($kit, @conf, @more, $so{$name});
    return ($rc, $out . $err);
}

# Runs of the kit mostly wait, so several are under way at a time.  A job is a
# name and what conform takes; all of them are run before anything is looked at.
sub conform_all {
    my (@jobs) = @_;
    my (%running, %done);
    while (@jobs || %running) {
        while (@jobs && keys %running < 5) {
            my ($key, $name, $text, $case, @more) = @{ shift @jobs };
            (my $to = folder() . "/run-$key") =~ tr/ /-/;
            my @conf = defined $text ? ('-c', spew("$to.conf", $text)) : ();
            my $pid = fork // die;
            if ($pid == 0) {
                delete $ENV{PD_TEST};
                $ENV{PD_TEST} = $case if defined $case;
                # What a thread of a library's keeps to allocate from is not lost.
                $ENV{GLIBC_TUNABLES} = 'glibc.malloc.tcache_count=0' if $name =~ /^(?:ucx|ofi|llama)$/;
                open STDOUT, '>', "$to.out" or POSIX::_exit(127);
                open STDERR, '>&', \*STDOUT or POSIX::_exit(127);
                exec $kit, @conf, @more, $so{$name} or POSIX::_exit(127);
            }
            $running{$pid} = [ $key, "$to.out" ];
        }
        my $pid = waitpid -1, 0;
        my $run = delete $running{$pid} or next;
        $done{ $run->[0] } = [ $? & 127 ? 'signal ' . ($? & 127) : $? >> 8, slurp($run->[1]) ];
    }
    return %done;
}

# ---- the program itself
my ($rc, $out, $err) = run_program($kit, '-l');
is $rc, 0, '-l';
my @cases = split /\n/, $out;
cmp_ok scalar(grep { /^transport / } @cases), '>', 40, 'lists the cases of transports';
for my $kind (qw(engine filter scorer picker decider adapter codec discovery exporter role)) {
    cmp_ok scalar(grep { /^$kind / } @cases), '>=', 3, "lists the cases of kind $kind";
}
($rc, $out) = run_program($kit, '-l', '-k', 'adapter');
is scalar(grep { !/^adapter / } split /\n/, $out), 0, '-l -k lists one kind';
is((run_program($kit))[0], 2, 'no module is a mistake');
is((run_program($kit, '-k', 'nonsense', $so{tcp} // 'x'))[0], 2, 'so is an unknown kind');
is((run_program($kit, folder() . '/none.so'))[0], 1, 'and a module that is not there');
($rc, $out) = conform('bad_magic');
is $rc, 1, 'what the loader refuses fails';
like $out, qr/^not ok 1 - the loader.*\n# .*0x12345678/m, 'and is told why';
if ($so{ref}) {
    ($rc, $out) = conform('ref');
    isnt $rc, 0, 'a required option that is missing';
    like $out, qr/"ref" is missing.*-c FILE/s, 'is told';
}

# ---- our own modules
my $kube = PDPlane::FakeKube->new(folder() . '/kube');
my %conf = (
    pd_threshold => q(pd_threshold = { unit = "tokens"; threshold = 100; };),
    ref => qq(ref = { model = "$model"; kv_memory = "4m"; };),
    llama => qq(llama = { model = "$model"; context = 512; };),
    tcp => "tcp = { $tcp }; tcp_small = { $tcp queue = 4; frame = \"4k\"; };",
    static => 'static = { servers = [ "http://127.0.0.1:8000", "http://127.0.0.2:8000" ]; peers = "127.0.0.3:7000"; };',
    file => sprintf('file = { path = "%s"; interval = "50ms"; };', folder() . '/file.json'),
    dns => 'dns = { server = "http://localhost:8000"; interval = "100ms"; };',
    kube => sprintf('kube = { service = "s"; namespace = "ns"; port = "http"; api = "http://127.0.0.1:%d"; token_file = "%s/kube/token"; };',
        $kube->port, folder()),
    ucx => "ucx = { transports = \"tcp,self\"; $fabric }; ucx_small = { transports = \"tcp,self\"; $fabric queue = 4; frame = \"4k\"; depth = 2; };",
    ofi => "ofi = { provider = \"tcp;ofi_rxm\"; $fabric }; ofi_small = { provider = \"tcp;ofi_rxm\"; $fabric queue = 4; frame = \"4k\"; depth = 2; };",
    shm => "shm = { $shm }; shm_small = { $shm queue = 4; };",
);
# What changes the world of a source.
my $change = "$^X -I" . srcdir() . '/t/lib ' . srcdir() . '/t/conform/source.pl';
my %more = (file => ['-x', "$change json " . folder() . '/file.json'], kube => ['-x', "$change kube " . folder() . '/kube']);
my $short = $ENV{PD_TEST_SHORT};
my @ours = sort grep { !$short || /^(?:ref|tcp|shm)$/ } map { m{([^/]+)\.so$} } map { glob "$_/*.so" } module_dirs();
my %ran = conform_all(map { [ $_, $_, $conf{$_}, undef, @{ $more{$_} // [] } ] }
        sort { ($b =~ /^(?:ref|llama|tcp|shm|ucx|ofi)$/) <=> ($a =~ /^(?:ref|llama|tcp|shm|ucx|ofi)$/) } @ours);
for my $name (@ours) {
    ($rc, $out) = @{ $ran{$name} };
    is $rc, 0, "$name passes" or diag join "\n", $out =~ /^(not ok.*\n(?:#.*\n)*)/mg, $out =~ /^([^#\s].*error.*)/mg;
    my ($plan) = $out =~ /^1\.\.(\d+)$/m;
    is scalar(() = $out =~ /^(?:not )?ok \d+ - /mg), $plan // 0, "$name: the plan is kept";
}

if ($short) {
    done_testing;
    exit 0;
}

# ---- modules that are broken on purpose: unit, fault, case that must find it
my @broken = (
    [ broken_sched => broken_filter => leak => 'cycles', qr/bytes are lost/ ],
    [ broken_sched => broken_filter => range => 'one', qr/keep\[0\] is 7/ ],
    [ broken_sched => broken_filter => unstable => 'stable', qr/answered differently/ ],
    [ broken_sched => broken_filter => behind => 'many', qr/behind its end/ ],
    [ broken_sched => broken_scorer => leak => 'cycles', qr/bytes are lost/ ],
    [ broken_sched => broken_scorer => range => 'one', qr/score\[0\] is 1\.5/ ],
    [ broken_sched => broken_scorer => nan => 'unfit', qr/score\[0\] is -?nan/ ],
    [ broken_sched => broken_scorer => unstable => 'stable', qr/answered differently/ ],
    [ broken_sched => broken_scorer => growth => 'growth', qr/bytes are kept/ ],
    [ broken_sched => broken_scorer => behind => 'empty', qr/behind its end/ ],
    [ broken_sched => broken_picker => range => 'one', qr/index 1 of 1 candidates/ ],
    [ broken_sched => broken_picker => unstable => 'many', qr/picked twice/ ],
    [ broken_sched => broken_picker => growth => 'growth', qr/bytes are kept/ ],
    [ broken_sched => broken_picker => behind => 'extremes', qr/behind its end/ ],
    [ broken_sched => broken_decider => range => 'one', qr/mode is 9/ ],
    [ broken_sched => broken_decider => unstable => 'stable', qr/answered differently/ ],
    [ broken_sched => broken_decider => behind => 'one', qr/reason has no end/ ],
    [ broken_sched => broken_filter => promise => 'promises', qr/PD_FILTER_STEADY, but what it does not depend on/ ],
    [ broken_sched => broken_scorer => promise => 'promises', qr/PD_SCORER_BY_\.\.\., but candidate 1 alone/ ],
    [ broken_sched => broken_picker => promise => 'promises', qr/PD_PICKER_NO_AGE, but/ ],
    [ broken_sched => broken_filter => global => 'side_by_side', qr/answers otherwise when another one has ended/ ],
    [ broken_sched => broken_scorer => global => 'side_by_side', qr/answers otherwise when another one has ended/ ],
    [ broken_sched => broken_picker => global => 'side_by_side', qr/pick gives none of 1 candidates/ ],
    [ broken_sched => broken_decider => global => 'side_by_side', qr/answers otherwise when another one has ended/ ],
    [ broken_sched => broken_filter => number => 'alike', qr/two instances that were asked the same answer differently/ ],
    [ broken_sched => broken_scorer => number => 'alike', qr/two instances that were asked the same answer differently/ ],
    [ broken_sched => broken_picker => number => 'alike', qr/two instances that were asked the same answer differently/ ],
    [ broken_sched => broken_decider => number => 'alike', qr/two instances that were asked the same answer differently/ ],
    [ broken_sched => broken_filter => first => 'empty', qr/keep is written behind its end/ ],
    [ broken_sched => broken_scorer => first => 'empty', qr/score is written behind its end/ ],
    [ broken_sched => broken_picker => first => 'empty', qr/pick gives 1 of 0 candidates/ ],
    [ broken_sched => broken_filter => state => 'unfit', qr/keep\[0\] is 2/ ],
    [ broken_sched => broken_scorer => state => 'unfit', qr/score\[0\] is -1/ ],
    [ broken_sched => broken_picker => state => 'unfit', qr/pick gives none of 6 candidates/ ],
    [ broken_sched => broken_decider => state => 'unfit', qr/mode is 0/ ],
    [ broken_sched => broken_filter => overflow => 'extremes', qr/keep\[\d+\] is 40/ ],
    [ broken_sched => broken_scorer => overflow => 'extremes', qr/score\[\d+\] is \S+, expected 0 to 1/ ],
    [ broken_sched => broken_picker => overflow => 'extremes', qr/pick gives none of \d+ candidates/ ],
    [ broken_sched => broken_decider => overflow => 'extremes', qr/reason has no end/ ],
    [ broken_sched => broken_filter => vector => 'many', qr/keep is written behind its end/ ],
    [ broken_sched => broken_scorer => vector => 'many', qr/score is written behind its end/ ],
    [ broken_sched => broken_picker => vector => 'many', qr/index 0 is picked twice/ ],
    [ broken_sched => broken_decider => vector => 'many', qr/reason has no end/ ],
    [ broken_sched => broken_filter => growth => 'growth', qr/bytes are kept/ ],
    [ broken_sched => broken_decider => growth => 'growth', qr/bytes are kept/ ],
    [ broken_sched => broken_filter => alloc => 'allocates', qr/allocate 2000 times/ ],
    [ broken_sched => broken_scorer => alloc => 'allocates', qr/allocate 2000 times/ ],
    [ broken_sched => broken_picker => alloc => 'allocates', qr/allocate 2000 times/ ],
    [ broken_sched => broken_decider => alloc => 'allocates', qr/allocate 2000 times/ ],
    [ broken_sched => broken_scorer => busy => 'idle', qr/wakes the loop \d+ times/ ],
    [ broken_sched => broken_scorer => nomem => 'no_memory', qr/bytes are lost when each of the 2 allocations/ ],
    [ broken_sched => broken_picker => crash => 'no_memory', qr/crashes when an allocation in create fails: number 2/ ],
    [ broken_sched => broken_filter => fds => 'no_descriptors', qr/1 descriptors are lost by a create with 1 left/ ],
    [ broken_sched => broken_decider => mute => 'no_descriptors', qr/without a text when descriptors are short/ ],
    [ broken_unit => broken_summary => undef, 'names', qr/summary is not a sentence/ ],
    [ broken_unit => broken_help => undef, 'rows', qr/option "limit": its help is not made of sentences/ ],
    [ broken_unit => broken_words => undef, 'rows', qr/option "word": knows the word "slow" twice/ ],
    [ broken_unit => broken_flags => undef, 'rows', qr/option "limit": flags 0x100000 are not known/ ],
    [ broken_unit => broken_check => leak => 'check', qr/check keeps memory/ ],
    [ broken_unit => broken_check => fds => 'check', qr/check keeps descriptors/ ],
    [ broken_unit => broken_check => change => 'check', qr/check changes the options/ ],
    [ broken_unit => broken_check => refuse => 'check', qr/check refuses the options: limit is too small/ ],
    [ broken_adapter => broken_adapter => leak => 'cycles', qr/bytes are lost/ ],
    [ broken_adapter => broken_adapter => global => 'side_by_side', qr/answers otherwise when another one has ended/ ],
    [ broken_adapter => broken_adapter => twice => 'split', qr/member "room" of the prefill leg is changed twice/ ],
    [ broken_adapter => broken_adapter => inner => 'split', qr/member "room\.door" stands in no object/ ],
    [ broken_adapter => broken_adapter => never => 'split', qr/a prefill server that never gives the whole answer is asked for it/ ],
    [ broken_adapter => broken_adapter => growth => 'growth', qr/each answer keeps memory/ ],
    [ broken_adapter => broken_adapter => target => 'http', qr/does not begin with/ ],
    [ broken_adapter => broken_adapter => header => 'http', qr/not in lower case/ ],
    [ broken_adapter => broken_adapter => value => 'http', qr/control character/ ],
    [ broken_adapter => broken_adapter => unknown => 'unknown_request', qr/PD_ENOSYS/ ],
    [ broken_adapter => broken_adapter => pair => 'split', qr/an answer that is not there/ ],
    [ broken_adapter => broken_adapter => dots => 'expects', qr/cannot be found by its name/ ],
    [ broken_adapter => broken_adapter => each => 'split', qr/flags that its op does not know/ ],
    [ broken_engine => mute_engine => none => 'info', qr/IMPORT is claimed without the operation seq_import/ ],
    [ broken_engine => broken_engine => leak => 'cycles', qr/bytes are lost/ ],
    [ broken_engine => broken_engine => global => 'side_by_side', qr/seq_open returns -\d+/ ],
    [ broken_engine => broken_engine => lower => 'text', qr/comes back as "once upon/ ],
    [ broken_engine => broken_engine => buffer => 'pieces', qr/the piece of token 32 is another one after others/ ],
    [ broken_engine => broken_engine => never => 'limits', qr/longer than the context is answered -\d+, expected PD_ELIMIT/ ],
    [ broken_engine => broken_engine => border => 'chunked', qr/tokens differ when the prompt is computed in two parts/ ],
    [ broken_engine => broken_engine => copy => 'handover', qr/tokens differ after a hand-over/ ],
    [ broken_engine => broken_engine => shared => 'handover', qr/a sequence has block \d+ twice/ ],
    [ broken_engine => broken_engine => inside => 'life', qr/from inside an op/ ],
    [ broken_engine => broken_engine => blocks => 'cancel', qr/blocks are free/ ],
    [ broken_engine => broken_engine => twice => 'life', qr/on_finish comes twice/ ],
    [ broken_engine => broken_engine => random => 'batched', qr/tokens differ/ ],
    [ broken_engine => broken_engine => utf8 => 'bad_text', qr/is taken/ ],
    [ broken_engine => broken_engine => chain => 'chain', qr/sequence 1 of 40, begun from inside on_finish/ ],
    [ broken_engine => broken_engine => asleep => 'wakeup', qr/sequence 19, begun when the engine was idle/ ],
    [ broken_engine => broken_engine => queue => 'many', qr/sequence 64 of many is answered -\d+, expected PD_EAGAIN/ ],
    [ broken_engine => broken_engine => busy => 'sleeps', qr/wakes the loop \d+ times/ ],
    [ broken_discovery => broken_discovery => leak => 'cycles', qr/bytes are lost/ ],
    [ broken_discovery => broken_discovery => global => 'side_by_side', qr/when another instance has ended, and the source is lost/ ],
    [ broken_discovery => broken_discovery => inside => 'order', qr/from inside an operation/ ],
    [ broken_discovery => broken_discovery => late => 'any_moment', qr/from inside an operation|after destroy/ ],
    [ broken_discovery => broken_discovery => silent => 'flags', qr/nothing is told within/ ],
    [ broken_claim => broken_claim => none => 'flags', qr/REFRESH is claimed without refresh/ ],
    [ broken_discovery => broken_discovery => unended => 'flags', qr/nothing is told within/ ],
    [ broken_discovery => broken_discovery => order => 'order', qr/ends that was not begun/ ],
    [ broken_discovery => broken_discovery => names => 'two_alike', qr/has no entry "n/ ],
    [ broken_discovery => broken_discovery => refresh => 'refreshes', qr/refreshes keep memory/ ],
    [ broken_discovery => broken_discovery => rename => 'add_remove', qr/has another name/ ],
    [ broken_discovery => broken_discovery => sticky => 'add_remove', qr/two less: the servers 2 4 are not/ ],
    [ broken_discovery => broken_discovery => stuck => 'flap', qr/after a storm: the servers 2 3 4 are not/ ],
    [ broken_discovery => broken_discovery => growth => 'change_growth', qr/bytes are kept/ ],
    [ broken_discovery => broken_discovery => twice => 'duplicates', qr/named twice: the servers 1 2 are not/ ],
    [ broken_discovery => broken_discovery => fragile => 'invalid', qr/takes others away: 0 of 3/ ],
    [ broken_discovery => broken_discovery => empty => 'resync', qr/taken away by a loss: 0 of 3/ ],
    [ broken_discovery => broken_discovery => deaf => 'late', qr/when it comes: the servers 1 2 are not/ ],
    [ broken_exporter => broken_exporter => leak => 'cycles', qr/bytes are lost/ ],
    [ broken_exporter => broken_exporter => inside => 'destroy_at_once', qr/from inside destroy|called twice/ ],
    [ broken_exporter => broken_exporter => global => 'side_by_side', qr/serve returns -\d+/ ],
    [ broken_exporter => broken_exporter => frozen => 'changes', qr/serve returns -\d+/ ],
    [ broken_exporter => broken_exporter => path => 'path', qr/does not begin with/ ],
    [ broken_exporter => broken_exporter => skip => 'whole', qr/is missing/ ],
    [ broken_exporter => broken_exporter => unstable => 'whole', qr/give another answer/ ],
    [ broken_exporter => broken_exporter => raw => 'escaping', qr/number of lines|not UTF-8/ ],
    [ broken_exporter => broken_exporter => cut => 'limit', qr/returns success/ ],
    [ broken_exporter => broken_exporter => growth => 'growth', qr/bytes are kept/ ],
    [ broken_exporter => broken_exporter => timer => 'start', qr/left handles/ ],
    [ broken_exporter => mute_exporter => none => 'path', qr/without serve/ ],
    [ broken_codec => broken_codec => leak => 'cycles', qr/bytes are lost/ ],
    [ broken_codec => broken_codec => global => 'side_by_side', qr/answers otherwise when another one has ended/ ],
    [ broken_codec => broken_codec => format => 'info', qr/format is 0/ ],
    [ broken_codec => broken_codec => lossy => 'sizes', qr/LOSSLESS is claimed/ ],
    [ broken_codec => broken_codec => bound => 'sizes', qr/room that bound names/ ],
    [ broken_codec => broken_codec => align => 'unaligned', qr/decode of what encode made/ ],
    [ broken_codec => broken_codec => behind => 'room', qr/writes behind its room/ ],
    [ broken_codec => broken_codec => unstable => 'stable', qr/encoded differently/ ],
    [ broken_codec => broken_codec => trust => 'foreign', qr/writes behind its room|are decoded to/ ],
    [ broken_codec => broken_codec => growth => 'growth', qr/bytes are kept/ ],
    [ broken_codec => broken_codec => shared => 'threads', qr/while other states are used/ ],
    [ broken_codec => broken_codec => alloc => 'allocates', qr/allocate 60 times/ ],
    [ broken_transport => broken_transport => leak => 'cycles', qr/bytes are lost/ ],
    [ broken_transport => broken_transport => twice => 'sizes', qr/dones is 1, expected 0/ ],
    [ broken_transport => broken_transport => outside => 'sizes', qr/is_guard/ ],
    [ broken_transport => broken_transport => read => 'read', qr/post_read.* is -3, expected 0/ ],
    [ broken_transport => broken_transport => inside => 'sizes', qr/./ ],
    [ broken_transport => broken_transport => asleep => 'sim_wakeup', qr/post 39, made when nothing moved, does not end/ ],
    [ broken_transport => broken_transport => chain => 'sim_chain', qr/a wake-up is lost/ ],
    [ broken_transport => broken_transport => early => 'visible', qr/on_bytes tells of bytes that are not there/ ],
    [ broken_transport => broken_transport => cross => 'both_sides', qr/tr_connect.* is -\d+, expected 0/ ],
    [ broken_transport => broken_transport => self => 'itself', qr/tr_connect.* is -\d+, expected 0/ ],
    [ broken_transport => broken_transport => segments => 'limits', qr/a post of 2001 segments is answered 0/ ],
    [ broken_transport => broken_transport => endless => 'limits', qr/200000 posts are taken/ ],
    [ broken_transport => broken_transport => claim => 'plain_memory', qr/NEEDS_FD is claimed, and memory without/ ],
    [ broken_transport => broken_transport => wrap => 'large', qr/a post of 4194304 bytes ends with 1 after 0/ ],
    [ broken_transport => broken_transport => fds => 'descriptors', qr/descriptors are lost when they are short/ ],
    [ broken_transport => broken_transport => busy => 'sleeps', qr/wakes the loop \d+ times/ ],
    [ broken_transport => broken_transport => narrow => 'info', qr/max_segments is 64, expected at least 1024/ ],
    [ broken_transport => broken_transport => global => 'side_by_side', qr/a post when another instance has ended is answered/ ],
    [ broken_transport => broken_transport => address => 'forged', qr/outside the window was written/ ],
    [ broken_transport => broken_transport => iov => 'segments', qr/does not hold: p->bytes == bytes/ ],
    [ broken_transport => broken_transport => order => 'permutation', qr/bytes differ: image and p->a\.base/ ],
    [ broken_transport => broken_transport => slots => 'many', qr/transfer is not p->transfer/ ],
    [ broken_transport => broken_transport => mute => 'sim_again', qr/does not hold: e->run\(e, writable_again/ ],
    [ broken_transport => broken_transport => poison => 'refused', qr/p->terminal is 3, expected 1/ ],
    [ broken_transport => broken_transport => clip => 'bounds', qr/tr_post.* is 0, expected -/ ],
    [ broken_transport => broken_transport => late => 'sim_cancel', qr/bytes differ: copy and p\.a\.base/ ],
    [ broken_transport => broken_transport => late => 'sim_cancel_fenced', qr/bytes differ: copy and p\.a\.base/ ],
    [ broken_transport => broken_transport => late => 'sim_read_stop', qr/does not hold: is_guard\(p\.b\.base/ ],
    [ broken_transport => broken_transport => unfenced => 'close_while_writing', qr/does not hold: is_guard\(p\.a\.base/ ],
    [ broken_transport => broken_transport => sum => 'twice', qr/does not hold: w->total == total/ ],
    [ broken_transport => broken_transport => abort => 'disconnects', qr/post\.terminal is 2, expected 1/ ],
    [ broken_transport => broken_transport => epoch => 'stale', qr/refused_ is 0, expected anything but 0/ ],
    [ broken_transport => broken_transport => generation => 'stale', qr/post\.terminal is 1, expected anything but 1/ ],
    [ broken_transport => broken_transport => trust => 'wrong_identity', qr/refused_ is 0, expected anything but 0/ ],
    [ broken_transport => broken_transport => remove => 'busy', qr/memory_remove\(p\.a\.memory\) is 0, expected -/ ],
    [ broken_transport => broken_transport => ways => 'reconnects', qr/does not hold: now <= before/ ],
    [ broken_transport => broken_transport => length => 'fuzz', qr/target_open\(.*\) is 0, expected anything but 0/ ],
    [ broken_transport => broken_transport => cache => 'memory_churn', qr/bytes differ: p\.a\.base and desc\.base/ ],
    [ broken_transport => broken_transport => down => 'kill_owner', qr/l\.down_status is 0, expected anything but 0/ ],
    [ broken_transport => broken_transport => word => 'kill_poster', qr/does not hold: e->run_loop\(e->la, is_closed/ ],
    [ broken_transport => broken_transport => trust => 'restart', qr/l\.up_status is 0, expected anything but 0/ ],
    [ broken_transport => broken_transport => epoch => 'restart', qr/target_open\(.*\) is 0, expected anything but 0/ ],
    [ broken_transport => broken_transport => wrap => 'huge', qr/a post of 1073741824 bytes ends with 1 after 0/ ],
    [ broken_transport => broken_transport => outside => 'pieces', qr/is wrong|behind piece/ ],
    [ broken_transport => broken_transport => growth => 'connects', qr/bytes are kept in 9000 ways/ ],
    [ broken_transport => broken_transport => shift => 'soak', qr/which ended well, is wrong in part/ ],
);
my @table = @broken;
# In a build with a sanitizer no allocation fails.
my $sanitized = (pdplane('-V'))[1] !~ /^sanitizers\s+no$/m;
@broken = grep { !$sanitized || $_->[3] ne 'no_memory' } @broken;

sub kind_of {
    my ($unit) = @_;
    return 'discovery' if $unit eq 'broken_claim';
    return 'adapter' if $unit =~ /^broken_(?:summary|help|words|flags|check)$/;
    return $unit =~ /^(?:broken|mute)_(\w+)/ ? $1 : die $unit;
}

# Options for one unit, and more of the command line.
sub options_of {
    my ($unit, $fault) = @_;
    return "" unless defined $fault;
    my $more = $unit =~ /transport/ ? $tcp : '';
    return (join(' ', map { "$_ = { $more fault = \"$fault\"; };" } $unit) .
            " ${unit}_small = { $more fault = \"$fault\"; queue = 4; frame = \"4k\"; };", '-L', 1) if $unit =~ /transport/;
    return "$unit = { $more fault = \"$fault\"; };" unless $unit =~ /discovery|claim/;
    my $path = folder() . "/source-$unit-$fault";
    return ("$unit = { path = \"$path\"; fault = \"$fault\"; };", '-x', "$change lines $path");
}

sub key_of {
    return join ' ', map { $_ // 'alone' } @{ $_[0] }[1 .. 3];
}
# What waits long for what never comes begins first.
my $slow = qr/^(?:wakeup|chain|kill_poster)$/;
my %found = conform_all(map {
        my ($module, $unit, $fault, $case) = @$_;
        my ($conf, @x) = options_of($unit, $fault);
        [ key_of($_), $module, $conf, $case, '-k', kind_of($unit), @x ]
    } sort { ($b->[3] =~ $slow) <=> ($a->[3] =~ $slow) } grep { $so{ $_->[0] } } @broken);
for my $b (grep { $so{ $_->[0] } } @broken) {
    my ($module, $unit, $fault, $case, $message) = @$b;
    my $kind = kind_of($unit);
    $fault //= $unit;
    ($rc, $out) = @{ $found{ key_of($b) } };
    is $rc, 1, "$kind $fault: fails";
    like $out, qr/^not ok \d+ - $kind $unit: $case\n(?:# .*\n)*# .*$message/m, "$kind $fault: found by $case" or diag $out;
}
my %sound = conform_all(map {
        my $module = /filter|scorer|picker|decider/ ? 'broken_sched' : "broken_$_";
        my ($text) = options_of("broken_$_", 'none');
        [ "sound $_", $module, $text, undef, '-k', $_ ]
    } my @kinds = ($so{broken_transport} ? 'transport' : (), qw(filter scorer picker decider adapter engine codec exporter)));
for my $kind (@kinds) {
    ($rc, $out) = @{ $sound{"sound $kind"} };
    unlike $out, qr/^not ok \d+ - $kind broken_/m, "$kind without a fault passes"
        or diag $out =~ /^(not ok.*\n(?:#.*\n)*)/mg;
    like $out, qr/^1\.\.\d+$/m, "$kind without a fault: to the end";
}

# ---- each case can fail
# Of those that all kinds share, one kind is enough where nothing in them depends on it.
my %shared = map { $_ => 1 } qw(names rows check destroy_at_once cycles no_memory no_descriptors idle);
my (%listed, %fails);
for (@cases) {
    my ($kind, $case) = split ' ';
    $listed{$kind}{$case}++;
}
is join(', ', map { my $kind = $_; map { "$kind $_" } grep { $listed{$kind}{$_} > 1 } keys %{ $listed{$kind} } } keys %listed),
    '', 'no kind has two cases of one name';
for (@table) {
    my ($kind, $case) = (kind_of($_->[1]), $_->[3]);
    s/^sim_// for my $plain = $case;
    $fails{$_}{$case} = $fails{$_}{$plain} = 1 for $kind, $shared{$case} ? 'any' : ();
}
my @cannot;
for my $kind (sort keys %listed) {
    for my $case (sort keys %{ $listed{$kind} }) {
        s/^sim_// for my $plain = $case;
        push @cannot, "$kind $case" unless $fails{ $shared{$case} ? 'any' : $kind }{$plain};
    }
}
is join(', ', @cannot), '', 'a module that is broken on purpose fails in each case';

my ($text, @x) = options_of('broken_discovery', 'none');
($rc, $out) = conform('broken_discovery', $text, undef, '-k', 'discovery', @x);
is $rc, 0, 'discovery without a fault passes' or diag $out =~ /^(not ok.*\n(?:#.*\n)*)/mg;
unlike $out, qr/# SKIP (?!the unit has no check|no allocation fails)/, 'with every case';

done_testing;
