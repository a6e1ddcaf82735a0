# SPDX-License-Identifier: Apache-2.0
# What clients with different keys share of the cache of prefixes: nothing, unless
# the router says so; in an engine of our own, over a hand-over, and behind an
# adapter.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use Test::More;

use PDPlane::Daemon qw(topology until_true port);
use PDPlane::FakeEngine;
use PDPlane::Http qw(get post json_of);
use PDPlane::Test qw(folder spew slurp);

# Two keys of one tenant, one of another.
my %keys = ('sk-a-1' => 'alice', 'sk-a-2' => 'alice', 'sk-b' => 'bob');
my $file = folder() . '/keys';
spew($file, join('', map { sprintf "sha256:%s %s\n", sha256_hex($_), $keys{$_} } sort keys %keys), 0600);

my $serial = 0;
# Several blocks of the model's 16 tokens that nobody has asked before.
sub prompt { $serial++; return join ' ', map { "$serial lion $_ lamp river honey" } 1 .. 6 }

# ask PORT, KEY, PROMPT, MORE: the tokens that were cached.
sub ask {
    my ($port, $key, $prompt, %more) = @_;
    my $r = post($port, '/v1/completions', { model => 'tiny', prompt => $prompt, max_tokens => 2, temperature => 0, %more },
        headers => $key eq '' ? {} : { authorization => "Bearer $key" });
    return "status $r->{status}: $r->{body}" if $r->{status} != 200;
    return json_of($r->{body})->{usage}{prompt_tokens_details}{cached_tokens} // 0;
}

sub node {
    my ($name, $role) = @_;
    my $node = PDPlane::Daemon->new($name, sprintf q(
load = [ "router", "decode", "ref" ];
role = { router = { %s }; };
engine = ( { name = "tiny"; type = "ref"; model = "%%%%MODEL%%%%"; roles = [ "decode" ]; } );
listen = ( { address = "127.0.0.1:%%%%PORT_%s_admin%%%%"; api = "admin"; },
           { address = "127.0.0.1:%%%%PORT_%s%%%%"; api = "openai"; api_keys_file = "%s"; },
           { address = "127.0.0.1:%%%%PORT_%s_open%%%%"; api = "openai"; } );
), $role, $name, $name, $file, $name);
    $node->start;
    return ($node, port($name), port("${name}_open"));
}

{
    my ($node, $port, $open) = node('apart', '');
    my $p = prompt();
    is ask($port, 'sk-a-1', $p), 0, 'apart: a prompt that is new';
    cmp_ok ask($port, 'sk-a-1', $p), '>', 15, 'apart: the same key finds it';
    is ask($port, 'sk-b', $p), 0, 'apart: another does not';
    cmp_ok ask($port, 'sk-a-2', $p), '>', 15, 'apart: a second key with the same label does';
    cmp_ok ask($port, 'sk-b', $p), '>', 15, 'apart: the other finds what is its own';
    is ask($open, '', $p), 0, 'apart: who needs no key does not';
    cmp_ok ask($open, '', $p), '>', 15, 'apart: but what is open to all';
    # A salt parts the prompts of one tenant; it never leads to those of another.
    is ask($port, 'sk-a-1', $p, cache_salt => 'x'), 0, 'apart: with a salt it is new';
    cmp_ok ask($port, 'sk-a-1', $p, cache_salt => 'x'), '>', 15, 'apart: with the same salt it is not';
    is ask($port, 'sk-b', $p, cache_salt => $_), 0, "apart: salt $_ of another tenant" for 'x', 'alice', 'alicex';
    is ask($open, '', $p, cache_salt => $_), 0, "apart: salt $_ without a key" for 'x', 'alice', 'alicex';
    $node->stop;
}
{
    my ($node, $port, $open) = node('shared', 'cache = "shared";');
    my $p = prompt();
    is ask($port, 'sk-a-1', $p), 0, 'shared: a prompt that is new';
    cmp_ok ask($port, 'sk-b', $p), '>', 15, 'shared: another key finds it';
    cmp_ok ask($open, '', $p), '>', 15, 'shared: and who needs none';
    is ask($port, 'sk-a-1', $p, cache_salt => 'x'), 0, 'shared: with a salt it is new';
    cmp_ok ask($port, 'sk-b', $p, cache_salt => 'x'), '>', 15, 'shared: and found under the same salt';
    $node->stop;
}

# ---- behind an adapter
{
    my $answer = '{"id":"x","object":"text_completion","choices":[{"index":0,"text":"hi","finish_reason":"stop"}],"usage":{}}';
    %PDPlane::FakeEngine::answers = (ok => sub { $_[1]->(PDPlane::FakeEngine::plain('200 OK', 'application/json', $answer)) });
    for my $case (['', 0], ['cache_salt = true;', 1]) {
        my ($option, $adds) = @$case;
        my $engine = PDPlane::FakeEngine->new("e$adds", models => ['tiny']);
        my $node = PDPlane::Daemon->new("adapter$adds", sprintf q(
load = [ "router", "openai" ];
endpoints = ( { name = "a"; type = "openai"; url = "http://127.0.0.1:%d"; %s } );
listen = ( { address = "127.0.0.1:%%%%PORT_a%d_admin%%%%"; api = "admin"; },
           { address = "127.0.0.1:%%%%PORT_a%d%%%%"; api = "openai"; api_keys_file = "%s"; },
           { address = "127.0.0.1:%%%%PORT_a%d_open%%%%"; api = "openai"; } );
), $engine->port, $option, $adds, $adds, $file, $adds);
        $node->start;
        my ($port, $open) = (port("a$adds"), port("a${adds}_open"));
        until_true(10, sub { (get($open, '/v1/models')->{body} // '') =~ /"tiny"/ });
        $engine->forget;
        my $prompt = prompt();
        my $salt = sub {
            my ($at, $key, %more) = @_;
            $engine->forget;
            is ask($at, $key, $prompt, %more), 0, "adapter, $adds: answered";
            my ($seen) = $engine->requests;
            return json_of((split /\r\n\r\n/, $seen, 2)[1])->{cache_salt} // '';
        };
        my ($a, $a2, $b, $o) = ($salt->($port, 'sk-a-1'), $salt->($port, 'sk-a-2'), $salt->($port, 'sk-b'), $salt->($open, ''));
        if ($adds) {
            like $a, qr/^[0-9a-f]{32}$/, 'adapter: the server gets a salt';
            is $a2, $a, 'adapter: the same for a key with the same label';
            isnt $b, $a, 'adapter: another for another';
        } else {
            is "$a$a2$b", '', 'adapter: a server that was not said to know it gets none';
        }
        is $o, '', 'adapter: nor without a key';
        my $own = $salt->($port, 'sk-a-1', cache_salt => "x \"'\x{e9}");
        like $own, qr/^[0-9a-f]{32}$/, 'adapter: a salt of the client never gets there';
        isnt $own, $salt->($port, 'sk-b', cache_salt => "x \"'\x{e9}"), 'adapter: and parts no other tenant';
        $node->stop;
    }
}

# ---- over a hand-over
{
    my $s = topology('1p1d');
    my $router = $s->{router};
    $router->stop;
    my $text = slurp($router->{conf});
    ok $text =~ s/(api = "openai";)/$1 api_keys_file = "$file";/, 'hand-over: the router wants keys';
    spew('router-keys.conf', $text);
    $router->{conf} = folder() . '/router-keys.conf';
    $router->start;
    my $port = $router->api_port;
    my $p = prompt();
    until_true(20, sub { ask($port, 'sk-b', 'x') eq '0' });
    is ask($port, 'sk-a-1', $p), 0, 'hand-over: a prompt that is new';
    cmp_ok ask($port, 'sk-a-1', $p), '>', 15, 'hand-over: the same key finds it';
    is ask($port, 'sk-b', $p), 0, 'hand-over: another does not';
    cmp_ok ask($port, 'sk-a-2', $p), '>', 15, 'hand-over: a key with the same label does';
    $_->stop for reverse @{ $s->{nodes} };
}

done_testing;
