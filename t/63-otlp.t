# SPDX-License-Identifier: Apache-2.0
# The exporter otlp against a collector of our own, which checks that what comes
# is what the protocol says: names, types, temporality, 64-bit integers as strings,
# buckets that add up; that refusals are waited out; and what is counted.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Test::More;

use PDPlane::Daemon qw(port until_true);
use PDPlane::Http qw(post json_of);
use PDPlane::Test;

plan skip_all => 'the exporter otlp is not built' unless grep { -e "$_/otlp.so" } module_dirs();

# A process that answers by the lines of a file and keeps what it got.
my $answers = folder() . '/answers';
my $got = folder() . '/got';
sub say_next { open my $f, '>>', $answers or die; print {$f} map { "$_\n" } @_; close $f or die }
say_next();
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1:0', Listen => 16, ReuseAddr => 1) or die "listen: $!";
my $port = $listener->sockport;
my $parent = $$;
my $collector = fork // die "fork: $!";
if ($collector == 0) {
    my $n = 0;
    while (my $c = $listener->accept) {
        my ($data, $close) = ('', 0);
        while (!$close) {
            my $have = sysread $c, $data, 1 << 20, length $data;
            last unless $have;
            while ($data =~ /\A(.*?)\r\n\r\n/s) {
                my ($head, $start) = ($1, length($1) + 4);
                my ($length) = $head =~ /^content-length: (\d+)/im;
                last if length($data) < $start + $length;
                my @lines = split /\n/, slurp($answers);
                my $answer = $lines[$n] // $lines[-1] // '200';
                open my $out, '>>:raw', $got or die;
                print {$out} pack('N/a* N/a* N/a*', $answer, $head, substr $data, $start, $length);
                close $out or die;
                substr $data, 0, $start + $length, '';
                $n++;
                open my $tally, '>>', "$got.n" or die;
                print {$tally} '.';
                close $tally or die;
                if ($answer eq 'cut') { $close = 1; last }
                my ($status, $more, $body) = split /\|/, $answer;
                $body //= '{}';
                syswrite $c, "HTTP/1.1 $status X\r\ncontent-type: application/json\r\n"
                    . ($more ? "$more\r\n" : '') . 'content-length: ' . length($body) . "\r\n\r\n$body";
            }
        }
        close $c;
    }
    exit 0;
}
close $listener;
END { if (defined $collector && $collector && $$ == $parent) { local $?; kill 'TERM', $collector; waitpid $collector, 0 } }

# [answer, head, body] of each request so far.
sub requests {
    return () unless -e $got;
    my ($data, @all) = (slurp($got));
    while (length $data) {
        my ($answer, $head, $body, $rest) = unpack 'N/a* N/a* N/a* a*', $data;
        last unless defined $rest;
        push @all, [ $answer, $head, $body ];
        $data = $rest;
    }
    return @all;
}
# Requests that the collector has answered in its life.
sub count_answered { return -s "$got.n" }
sub wait_for { my ($n) = @_; return until_true(20, sub { requests() >= $n }) }

# ---- what a request must look like
my $int = qr/\A\d{1,20}\z/;
sub attributes_ok {
    my ($list) = @_;
    return !grep { ref ne 'HASH' || join(' ', sort keys %$_) ne 'key value' || $_->{key} !~ /\A[a-z][a-z0-9_.]*\z/
        || join(' ', keys %{ $_->{value} }) ne 'stringValue' } @$list;
}
sub point_problem {
    my ($kind, $p) = @_;
    return 'attributes' unless attributes_ok($p->{attributes});
    return 'time' unless $p->{timeUnixNano} =~ $int && $p->{timeUnixNano} > 1.6e18;
    return 'start' if $kind ne 'gauge' && !($p->{startTimeUnixNano} =~ $int && $p->{startTimeUnixNano} <= $p->{timeUnixNano});
    return 'asInt' if $kind eq 'sum' && !($p->{asInt} =~ $int);
    return 'asDouble' if $kind eq 'gauge' && $p->{asDouble} !~ /\A(?:-?[0-9.]+(?:e[-+]?\d+)?|NaN|-?Infinity)\z/i;
    return undef if $kind ne 'histogram';
    return 'count' unless $p->{count} =~ $int && defined $p->{sum};
    return 'buckets' unless @{ $p->{bucketCounts} } == @{ $p->{explicitBounds} } + 1;
    my $sum = 0;
    $sum += $_ for @{ $p->{bucketCounts} };
    return 'sum of buckets' unless $sum == $p->{count};
    my @b = @{ $p->{explicitBounds} };
    return 'bounds' if grep { $b[$_] <= $b[ $_ - 1 ] } 1 .. $#b;
    return undef;
}
my (%value, $points);
sub problems {
    my ($body) = @_;
    my $r = eval { json_of($body) } or return "no JSON: $@";
    my @bad;
    push @bad, 'top ' . join ' ', keys %$r unless join(' ', keys %$r) eq 'resourceMetrics';
    my ($rm, @more) = @{ $r->{resourceMetrics} };
    push @bad, 'resources' if @more || !attributes_ok($rm->{resource}{attributes});
    my %resource = map { $_->{key} => $_->{value}{stringValue} } @{ $rm->{resource}{attributes} };
    push @bad, 'service.name' unless $resource{'service.name'} eq 'pd-test';
    push @bad, 'instance' unless $resource{'service.instance.id'} =~ /\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z/;
    push @bad, 'version' unless $resource{'service.version'} =~ /\A\d+\.\d+/;
    my ($sm, @other) = @{ $rm->{scopeMetrics} };
    push @bad, 'scope' unless !@other && $sm->{scope}{name} eq 'pdplane' && $sm->{scope}{version};
    $points = 0;
    for my $m (@{ $sm->{metrics} }) {
        my ($kind, @kinds) = grep { exists $m->{$_} } qw(sum gauge histogram);
        push @bad, "$m->{name}: kinds" and next if @kinds || !defined $kind;
        push @bad, "$m->{name}: head" unless $m->{name} =~ /\Apdplane_/ && $m->{description} =~ /\S/ && $m->{unit} =~ /\A(?:s|By|1)\z/;
        push @bad, "$m->{name}: temporality" if $kind ne 'gauge' && $m->{$kind}{aggregationTemporality} != 2;
        push @bad, "$m->{name}: monotonic" if $kind eq 'sum' && !$m->{sum}{isMonotonic};
        push @bad, "$m->{name}: no points" unless @{ $m->{$kind}{dataPoints} };
        for my $p (@{ $m->{$kind}{dataPoints} }) {
            my $problem = point_problem($kind, $p);
            push @bad, "$m->{name}: $problem" if defined $problem;
            $points++;
            my $labels = join ',', map { "$_->{key}=$_->{value}{stringValue}" } @{ $p->{attributes} };
            $value{"$m->{name}\{$labels}"} = $p->{asInt} // $p->{asDouble} // $p->{count};
        }
    }
    return @bad;
}
is_deeply [problems('{"resourceMetrics":[{"resource":{"attributes":[]},"scopeMetrics":[{"scope":{},"metrics":[{"name":"x"}]}]}]}') > 3],
    [1], 'the checks find what is wrong';

# ---- a node that sends ten times a second
spew('token', "s3cret\n", 0600);
my $n = 0;
sub node {
    my ($more, @expect) = @_;
    my $d = PDPlane::Daemon->new('node' . ++$n, sprintf <<'END', $port, folder(), $more);
load = [ "router", "decode", "ref", "otlp" ];
listen = ( { address = "127.0.0.1:%%%%PORT_api%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; } );
engine = ( { name = "tiny"; type = "ref"; model = "%%%%MODEL%%%%"; } );
exporter = { otlp = { url = "http://127.0.0.1:%d"; interval = "200ms"; service = "pd-test"; token_file = "%s/token"; %s }; };
END
    $d->expect_log(@expect) if @expect;
    $d->start;
    return $d;
}
my $d = node('');
my $r = post($d->api_port, '/v1/completions', { model => 'tiny', prompt => 'Once', max_tokens => 3 });
is $r->{status}, 200, 'a request';
ok wait_for(scalar(requests()) + 4), 'the collector is told';
my @all = requests();
my ($answer, $head, $body) = @{ $all[-1] };
like $head, qr{\APOST /v1/metrics HTTP/1\.1\r\n}, 'at /v1/metrics';
like $head, qr/^content-type: application\/json\r?$/im, 'as JSON';
like $head, qr/^authorization: Bearer s3cret\r?$/im, 'with the token';
is_deeply [problems($body)], [], 'every metric is well formed';
cmp_ok $points, '>', 50, "$points data points";
my %pushed = %value;
is $pushed{'pdplane_otlp_failures_total{}'}, 0, 'its own counters are among them';
# The same figures as those that are scraped, where nothing moves any more.
my $same = 0;
for my $name (grep { /requests_total|tokens_total|handovers/ && !/otlp|http/ } sort keys %pushed) {
    my ($family, $labels) = $name =~ /\A(\w+)\{(.*)\}\z/;
    my $scraped = $d->metric($labels eq '' ? $family : "$family\{" . join(',', map { s/=(.*)/="$1"/r } split /,/, $labels) . '}');
    is $pushed{$name}, $scraped, "$name is what /metrics says" and $same++ if defined $scraped;
}
cmp_ok $same, '>', 3, "$same figures were compared";
cmp_ok $d->metric('pdplane_otlp_sent_points_total'), '>', $points, 'what was taken is counted';
is $d->metric('pdplane_otlp_dropped_points_total'), 0, 'nothing was dropped';
like slurp($got), qr/service\.name/, 'something is kept';
$d->stop;

# ---- batches
unlink $got;
$d = node('batch = 20;');
ok wait_for(10), 'many requests';
@all = requests();
is scalar(grep { problems($_->[2]) } @all), 0, 'each is whole in itself';
problems($_->[2]), cmp_ok($points, '<=', 20, "$points points") for @all[0 .. 2];
$d->stop;

# ---- refusals: waited out, dropped or cut
unlink $got;
$d = node('give_up = "20s";', qr/collector at .* cannot be told/, qr/is told again/);
ok wait_for(1), 'one more node';
my $at = count_answered();
say_next((('200') x ($at + 5)), '503|retry-after: 1', 'cut', '400', '200||{"partialSuccess":{"rejectedDataPoints":"7"}}', '200');
ok until_true(30, sub { ($d->metric('pdplane_otlp_rejected_points_total') // 0) == 7 }), 'what the collector rejects is counted';
@all = requests();
my ($first) = grep { $all[$_][0] =~ /^503/ } 0 .. $#all;
is join(' ', map { $all[$_][0] =~ s/\|.*//r } $first .. $first + 3), '503 cut 400 200', 'one after another';
is $all[ $first + 1 ][2], $all[$first][2], 'after 503 the same again';
is $all[ $first + 2 ][2], $all[$first][2], 'after a cut, too';
isnt $all[ $first + 3 ][2], $all[$first][2], 'after 400 something new';
problems($all[$first][2]);
is $d->metric('pdplane_otlp_dropped_points_total'), $points, "what 400 refused is dropped: $points points";
is $d->metric('pdplane_otlp_failures_total'), 3, 'three failures';
$d->stop;

# ---- nobody there
unlink $got;
kill 'TERM', $collector;
waitpid $collector, 0;
$collector = 0;
$d = node('timeout = "1s"; give_up = "5s";', qr/collector at .* cannot be told/);
ok until_true(20, sub { ($d->metric('pdplane_otlp_dropped_points_total') // 0) > 0 }), 'without a collector points are dropped';
cmp_ok $d->metric('pdplane_otlp_failures_total'), '>', 0, 'and failures counted';
cmp_ok $d->metric('pdplane_otlp_late_total'), '>', 0, 'and intervals left out';
is $d->metric('pdplane_otlp_sent_points_total'), 0, 'nothing counts as sent';
is scalar(() = $d->log_text =~ /cannot be told/g), 1, 'one complaint is enough';
$d->stop;

done_testing;
