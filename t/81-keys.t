# SPDX-License-Identifier: Apache-2.0
# Keys of clients: who is let in, what the others see, what is told and what is
# not; changed files; and which headers of clients go no further.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use Test::More;

use PDPlane::Daemon qw(until_true port);
use PDPlane::FakeEngine;
use PDPlane::Http qw(get post parallel json_of);
use PDPlane::Test qw(folder spew slurp run_program builddir);

my $answer = '{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}';
%PDPlane::FakeEngine::answers = (ok => sub { $_[1]->(PDPlane::FakeEngine::plain('200 OK', 'application/json', $answer)) });
my $engine = PDPlane::FakeEngine->new('a', models => ['m']);

my ($alice, $bob, $carol) = ('sk-alice-0123456789', 'sk-bob-9876543210', 'sk-carol');
my $file = folder() . '/keys';
my $keys = sub { return join '', "# who may\n\n", map { sprintf "sha256:%s  %s\n", sha256_hex($_->[0]), $_->[1] } @_ };
spew($file, $keys->([$alice, 'alice'], [$bob, 'team.bob-2']), 0640);
my $conf = sub { my ($path) = @_; return sprintf q(
load = [ "router", "openai" ];
control = "%s/ctl";
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:%d"; } );
listen = ( { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; },
           { address = "127.0.0.1:%%%%PORT_api%%%%"; api = "openai"; api_keys_file = "%s"; },
           { address = "127.0.0.1:%%%%PORT_open%%%%"; api = "openai"; } );
), folder(), $engine->port, $path };
my $node = PDPlane::Daemon->new('keys', $conf->($file));
$node->start;
my ($port, $open) = (port('api'), port('open'));
until_true(10, sub { (get($open, '/v1/models')->{body} // '') =~ /"m"/ });

my %ask = (model => 'm', messages => [ { role => 'user', content => 'hello' } ]);
sub with { my (%headers) = @_; return post($port, '/v1/chat/completions', \%ask, headers => \%headers) }

is with(authorization => "Bearer $alice")->{status}, 200, 'a key as bearer';
is with(authorization => "bearer   $bob ")->{status}, 200, 'another, in another spelling';
is with('x-api-key' => $alice)->{status}, 200, 'as x-api-key';
for my $bad ([ 'none' ], [ 'a wrong one', authorization => "Bearer $carol" ], [ 'a part of one', authorization => 'Bearer ' . substr $alice, 0, -1 ],
    [ 'more than one', authorization => "Bearer ${alice}x" ], [ 'an empty one', authorization => 'Bearer ' ],
    [ 'another scheme', authorization => "Basic $alice" ], [ 'its digest', authorization => 'Bearer ' . sha256_hex($alice) ],
    [ 'a long one', 'x-api-key' => 'k' x 5000 ]) {
    my ($what, %h) = @$bad;
    my $r = with(%h);
    is $r->{status}, 401, "$what is refused";
    my $e = json_of($r->{body})->{error};
    is_deeply [ @{$e}{qw(type code param)} ], [ 'invalid_request_error', 'invalid_api_key', undef ], 'with the error of the API';
}
is get($port, '/health')->{status}, 200, '/health needs none';
is get($port, '/v1/models')->{status}, 401, '/v1/models does';
is get($port, '/v1/models/m')->{status}, 401, 'a model that exists';
is get($port, '/v1/models/zzz')->{status}, 401, 'and one that does not look the same';
is post($open, '/v1/chat/completions', \%ask)->{status}, 200, 'the other listener needs none';
my ($r) = parallel($port, [ '/v1/chat/completions', 'x' x 3_000_000, headers => { authorization => 'Bearer no' } ]);
ok !defined $r->{status} || $r->{status} == 401 || $r->{status} == 413, 'a large body does not get far';
ok $node->metric('pdplane_http_unauthorized_total{listener="openai"}') >= 11, 'they are counted';
my $control = folder() . '/ctl';
my ($rc, $out) = run_program(builddir() . '/pdctl', '-s', $control, '-j', 'requests');
like $out, qr/"team\.bob-2"/, 'requests are shown with the label of their key';

# ---- a changed file
spew($file, $keys->([$carol, 'carol'], [$alice, 'alice']), 0640);
ok until_true(8, sub { with(authorization => "Bearer $carol")->{status} == 200 }), 'a new key works within seconds';
is with(authorization => "Bearer $bob")->{status}, 401, 'one that was taken out does not';
like $node->log_text, qr/has changed: 2 keys are in use/, 'the log tells';
$node->expect_log(qr/the changed keys cannot be used/);
spew($file, "sha256:$alice alice\n", 0640);
ok until_true(8, sub { with(authorization => "Bearer $alice"); $node->log_text =~ /the changed keys cannot be used, the old ones stay/ }), 'a bad file leaves the old keys';
is with(authorization => "Bearer $carol")->{status}, 200, 'in use';

# ---- what clients cannot tell servers
$engine->forget;
my %hints = map { $_ => '10.1.2.3:80' } qw(x-prefiller-host-port X-Prefiller-Host-Port x_prefiller_host_port x-prefiller-url
    x-encoder-hosts-ports x-data-parallel-host-port x-data-parallel-rank x-kv-transfer x-kv-params x-pd-peer x-pd-anything
    forwarded x-forwarded-for x-forwarded-host cookie te x-whatever proxy-authorization);
is with(%hints, authorization => "Bearer $carol", 'x-request-id' => 'mine-1', connection => 'close, x-request-id')->{status}, 200, 'a request with hints';
my ($seen) = $engine->requests;
my %names = map { lc((split /:/, $_)[0]) => 1 } grep { /:/ } split /\r\n/, (split /\r\n\r\n/, $seen)[0];
is_deeply [ sort keys %names ], [ sort qw(host content-type content-length x-request-id), exists $names{connection} ? 'connection' : () ], 'no header of the client goes on';
unlike $seen, qr/10\.1\.2\.3|sk-/, 'and nothing of them';
unlike $seen, qr/mine-1/, 'nor its request id';
($rc, $out) = run_program(builddir() . '/pdctl', '-s', $control, 'explain', 'mine-1');
my ($ours) = $seen =~ /^x-request-id: ([0-9a-f]{32})\r$/mi;
like $out, qr/knows it as $ours/, 'pdctl explain tells which id the server got';

# ---- the same, refused
{
    my $strict = PDPlane::Daemon->new('strict', sprintf 'load = [ "router", "openai" ]; role = { router = { hints = "refuse"; }; };
endpoints = ( { name = "up"; type = "openai"; url = "http://127.0.0.1:%d"; } );
listen = ( { address = "127.0.0.1:%%%%PORT_sadmin%%%%"; api = "admin"; }, { address = "127.0.0.1:%%%%PORT_strict%%%%"; api = "openai"; } );', $engine->port);
    $strict->start;
    my $ask = sub { my ($body, %h) = @_; return post($strict->api_port, '/v1/chat/completions', { %ask, %$body }, headers => \%h) };
    until_true(10, sub { ($ask->({})->{status} // 0) == 200 });
    is $ask->({}, 'x-request-id' => 'a', 'x-whatever' => 1)->{status}, 200, 'strict: a plain request';
    $engine->forget;
    my $n = 0;
    for my $h (grep { /^x-(?:pref|enc|data|kv|pd|for)|^forwarded/i } sort keys %hints) {
        my $r = $ask->({}, $h => '10.1.2.3:80');
        my $e = eval { json_of($r->{body})->{error} } // {};
        is "$r->{status} $e->{type} $e->{code}", '403 permission_error forbidden_route', "strict: header $h";
        unlike $r->{body}, qr/10\.1\.2\.3/, 'its value is not repeated';
        $n++;
    }
    for my $body ({ kv_transfer_params => { remote_host => 'a' } }, { remote_anything => 1 }, { disagg_x => 1 }, { tp_size => 4 },
        { extra_body => { bootstrap_host => 'a' } }, { sampling_params => { do_remote_prefill => JSON::PP::true() } }, { nvext => {} }) {
        my $r = $ask->($body);
        is "$r->{status} " . (json_of($r->{body})->{error}{code} // ''), '403 forbidden_route', 'strict: member ' . (keys %$body)[0];
        $n++;
    }
    is scalar($engine->requests), 0, 'strict: no server saw any of them';
    is $strict->metric('pdplane_router_hints_refused_total'), $n, 'strict: each is counted';
    is $ask->({}, x_prefiller_host_port => '10.1.2.3:80')->{status}, 200, 'strict: names with an underscore are dropped as they come';
    is $ask->({ user => 'kv_transfer_params remote_host' })->{status}, 200, 'strict: words inside of values are no hints';
    $strict->stop;
}

# ---- secrets
my $text = join '', map { slurp($_) } grep { -f && !/keys$|request|\.conf$/ } glob(folder() . '/*.log');
unlike $text, qr/sk-|\b[0-9a-f]{64}\b/, 'no key and no digest in the log';
my $status = get($node->admin, '/metrics')->{body} . $out;
unlike $status, qr/sk-/, 'nor in metrics and tables';
$node->stop;

# ---- wrong files
for my $bad ([ 'mode 0644', $keys->([$alice, 'alice']), 0644, qr/keys\.bad/ ], [ 'a key instead of a digest', "$alice alice\n", 0600, qr/keys\.bad line 1 is not/ ],
    [ 'no label', 'sha256:' . sha256_hex('a') . "\n", 0600, qr/line 1/ ], [ 'no key', "# nothing\n", 0600, qr/has no key/ ]) {
    my ($what, $content, $mode, $want) = @$bad;
    spew('keys.bad', $content, $mode);
    my $n = PDPlane::Daemon->new('bad', $conf->(folder() . '/keys.bad'));
    my $binary = $ENV{PD_BINARY} // builddir() . '/pdplane';
    my (undef, $o, $e) = run_program($binary, '-D', '-c', $n->{conf});
    like "$o$e", $want, "$what is refused";
    unlike "$o$e", qr/sk-/, 'without showing it';
    unlink folder() . '/keys.bad';
}

done_testing;
