# SPDX-License-Identifier: Apache-2.0
# The official openai library for Node (major 6) as a client of router, prefill and
# decode nodes: t/client/openai.mjs.  Installed from the registry into the build
# folder once.
use strict;
use warnings;

use File::Copy qw(copy);
use File::Path qw(make_path);
use Test::More;

use PDPlane::Daemon qw(topology);
use PDPlane::FakeEngine;
use PDPlane::Test qw(builddir srcdir folder slurp);

my $least = 18;
my ($node_version) = `node --version 2>&1` =~ /^v(\d+)/;
plan skip_all => 'node is not installed' unless defined $node_version;
plan skip_all => "node $node_version is older than $least, which openai 6 needs" if $node_version < $least;
plan skip_all => 'npm is not installed' unless `npm --version 2>/dev/null` =~ /^\d/;

my $dir = builddir() . '/t/client-run';
make_path($dir);
my $package = "$dir/node_modules/openai/package.json";
unless (-e $package && slurp($package) =~ /"version": "6\./) {
    # A registry that does not answer is no reason to wait.
    my $out = `timeout -k 5 120 npm install --prefix '$dir' --no-audit --no-fund --no-save --fetch-retries 1 --fetch-timeout 30000 openai\@6 2>&1`;
    plan skip_all => 'openai cannot be installed from the registry: '
        . ($? >> 8 == 124 ? 'no answer in 120 s' : $out =~ /(npm \S+ code .*)/ ? $1 : 'see npm') if $? != 0;
}
copy(srcdir() . '/t/client/openai.mjs', "$dir/openai.mjs") or die $!;

sub error_of { my ($status) = @_;
    return sub { $_[1]->(PDPlane::FakeEngine::plain("$status X", 'application/json',
        qq({"error":{"message":"says $status","type":"x","param":null,"code":"c$status"}}))) } }
%PDPlane::FakeEngine::answers = (
    (map { ("say-$_" => error_of($_)) } 400, 401, 403, 404, 409, 422, 429, 500, 502, 503),
    cut => sub { 0 },
    break => sub { $_[1]->("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        . PDPlane::FakeEngine::chunk(qq(data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\ndata: {"cho)));
        select undef, undef, undef, 0.05; 0 },
);
my $fake = PDPlane::FakeEngine->new('fake', models => [ sort keys %PDPlane::FakeEngine::answers ], mode => 'by_model');
my $s = topology('1p1d', engine => 'ms_per_token = 2;', router => sprintf <<'END', $fake->port);
role = { router = { max_requests = 24; }; };
endpoints = ( { name = "fake"; type = "openai"; url = "http://127.0.0.1:%d"; } );
END
$s->expect_log(qr/request failed with status/, qr/a transfer failed/, qr/peer .* (?:down|lost|suspect)/);

$ENV{PD_API} = $s->port;
$ENV{PD_ADMIN} = join ',', map { $_->admin } @{ $s->{prefill} }, @{ $s->{decode} };
delete @ENV{qw(http_proxy https_proxy HTTP_PROXY HTTPS_PROXY)};
my $planned;
open my $out, '-|', 'node', "$dir/openai.mjs" or die $!;
while (my $line = <$out>) {
    if    ($line =~ /^(not )?ok \d+ - (.*)/) { ok !$1, $2 }
    elsif ($line =~ /^kill decode/)          { $s->{decode}[0]->kill9 }
    elsif ($line =~ /^1\.\.\d+/)             { $planned = 1 }
    else                                     { chomp $line; diag $line }
}
close $out;
is $?, 0, 'the client ended well';
ok $planned, 'after all of its tests';
$s->stop;
done_testing;
