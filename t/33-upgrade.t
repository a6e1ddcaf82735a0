# SPDX-License-Identifier: Apache-2.0
# Upgrades of a router under load: the new worker takes clients only when it has
# seen its servers up, or when it has waited long enough for them.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use PDPlane::Daemon qw(until_true);
use PDPlane::FakeEngine;
use PDPlane::Http qw(get post);
use PDPlane::Test;

my $answer = '{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},'
    . '"finish_reason":"stop"}]}';
%PDPlane::FakeEngine::answers = (
    ok => sub { $_[1]->(PDPlane::FakeEngine::plain('200 OK', 'application/json', $answer)) },
);
# A server that is slow to tell its models: a router does not know it at once.
my $engine = PDPlane::FakeEngine->new('a', list_delay => 0.3);
my $router = PDPlane::Daemon->new('router', sprintf <<"END", folder(), $engine->port);
load = [ "router", "openai" ];
pid_file = "%s/router.pid";
listen = ( { address = "127.0.0.1:%%%%PORT_api%%%%"; api = "openai"; },
           { address = "127.0.0.1:%%%%PORT_admin%%%%"; api = "admin"; } );
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:%d"; } );
role = { router = { probe_interval = "1s"; }; };
END
$router->start(manager => 1);
my $port = $router->api_port;
ok until_true(20, sub { get($port, '/v1/models')->{body} =~ /"m"/ }), 'the server is known';

sub workers { return scalar(() = $router->log_text =~ /worker \d+ serves/g) }
sub upgrade {
    my ($what) = @_;
    my $before = workers();
    is +(run_program(builddir() . '/pdplane', '-s', 'upgrade', '-c', $router->{conf}))[0], 0, "$what is taken";
    return until_true(20, sub { workers() > $before });
}

my ($stop, @children) = folder() . '/stop';
for my $n (1 .. 3) {
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        my ($asked, $bad) = (0, 0);
        until (-e $stop) {
            my $r = post($port, '/v1/chat/completions', { model => 'm', messages => [ { role => 'user', content => 'x' } ] });
            $asked++;
            next if $r->{status} == 200 && $r->{body} eq $answer;
            $bad++;
            print STDERR "# status $r->{status}: $r->{body}\n" if $bad < 3;
        }
        POSIX::_exit($bad > 0 ? 1 : $asked < 10 ? 2 : 0);
    }
    push @children, $pid;
}
for my $n (1 .. 3) {
    ok upgrade("upgrade $n"), "upgrade $n: a new worker serves";
    sleep 0.2;
}
spew($stop, '');
is join(' ', map { waitpid $_, 0; $? >> 8 } @children), '0 0 0', 'no request failed meanwhile';

# Nothing is up: the new worker does not wait for ever, and says what it lacks.
$router->expect_log(qr/endpoint "a" is down/, qr/serving although router is not ready/);
$engine->mode('unhealthy');
ok until_true(20, sub { $router->log_text =~ /endpoint "a" is down/ }), 'the server is down';
my $began = time;
ok upgrade('an upgrade without a server'), 'a new worker serves all the same';
cmp_ok time - $began, '>', 4, 'once it has waited';
like $router->log_text, qr/serving although router is not ready: /, 'and tells so';
is post($port, '/v1/chat/completions', { model => 'm', messages => [] })->{status} =~ /^(?:400|503)$/ ? 1 : 0, 1,
    'with an honest answer';
$router->stop;

done_testing;
