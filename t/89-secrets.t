# SPDX-License-Identifier: Apache-2.0
# Nodes with known secrets work at log level debug; then everything that they say
# is searched for these.  The search is shown to find them where they belong.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use Test::More;

use PDPlane::Certs qw(have_openssl authority leaf pem key);
use PDPlane::Daemon qw(port until_true topology);
use PDPlane::Golden qw(golden greedy text_of);
use PDPlane::Http qw(get post);
use PDPlane::Test qw(folder spew slurp builddir run_program);

plan skip_all => 'needs the command openssl' unless have_openssl();

authority('ca');
leaf('node', 'ca', 'DNS:node.example');
my ($api_key, $secret, $wrong, $words) = ('sk-known-api-key-0123456789', 'known-link-secret-abcdef', 'sk-wrong-key-9876543210', 'marvellous zebra prompt');
my $keys = spew('client.keys', 'sha256:' . sha256_hex($api_key) . " team\n", 0600);
my $secret_file = spew('link.secret', $secret, 0600);
my @pem = grep { length > 40 } split /\n/, slurp(key('node'));
my %secrets = ('API key' => $api_key, 'wrong API key' => $wrong, 'link secret' => $secret, 'digest of a key' => sha256_hex($api_key),
    'prompt' => $words, map { ("private key, line $_" => $pem[$_]) } 0 .. $#pem);

my $link = sprintf 'link = { secret_file = "%s"; tls = { certificate = "%s"; key = "%s"; ca = "%s"; }; }; log = { level = "debug"; };',
    $secret_file, pem('node'), key('node'), pem('ca');
my $control = folder() . '/router.sock';
my $s = topology('1p1d', transport => 'tcp', all => $link, router => qq(control = "$control";));
my $router = $s->{router};
# The same router again, with keys on its listener, reached by a second port.
my $front = PDPlane::Daemon->new('front', sprintf q(load = [ "router", "openai" ]; log = { level = "debug"; };
endpoints = ( { name = "up"; type = "openai"; url = "http://127.0.0.1:%d"; } );
listen = ( { address = "127.0.0.1:%%%%PORT_fa%%%%"; api = "admin"; }, { address = "127.0.0.1:%%%%PORT_fo%%%%"; api = "openai"; api_keys_file = "%s"; } );),
    $s->port, $keys);
$front->start;
my ($path, $ask) = @{ (greedy())[0] };
my $with = sub { return post($front->api_port, $path, $_[1] // $ask, headers => { authorization => "Bearer $_[0]" }) };
until_true(10, sub { ($with->($api_key)->{status} // 0) == 200 });
is text_of($with->($api_key)), (golden())[0]{text}, 'a request with the key';
my @said = map { $_->{raw} // '' } $with->($wrong), $with->($api_key, { %$ask, prompt => $words, model => 'none' }),
    post($front->api_port, $path, '{ broken', headers => { authorization => "Bearer $api_key" }),
    get($front->api_port, '/nowhere', headers => { authorization => "Bearer $api_key" });
is $with->($api_key, { %$ask, prompt => $words, max_tokens => 4 })->{status}, 200, 'a prompt with known words';

# ---- everything that is said
my %text = (errors => join("\n", @said));
for my $n (@{ $s->{nodes} }, $front) {
    $text{ 'log of ' . $n->name } = sub { $n->log_text };
    $text{ "$_ of " . $n->name } = get($n->admin, $_)->{body} // '' for qw(/metrics /status /status.json /ready /health);
    my (undef, $out, $err) = run_program(builddir() . '/pdplane', '-T', '-c', $n->{conf});
    $text{ '-T of ' . $n->name } = $out . $err;
    open my $env, '<', '/proc/' . $n->pid . '/cmdline' or next;
    $text{ 'command line of ' . $n->name } = join '', <$env>;
}
for my $word (qw(status nodes endpoints requests transfers leases modules generations)) {
    my (undef, $out, $err) = run_program(builddir() . '/pdctl', '-s', $control, '-j', $word);
    $text{"pdctl $word"} = $out . $err;
}
$_->stop for $front, @{ $s->{nodes} };
$text{$_} = $text{$_}->() for grep { ref $text{$_} } keys %text;

sub where { my ($what) = @_; return join ', ', sort grep { index($text{$_}, $what) >= 0 } keys %text }
cmp_ok length(join '', values %text), '>', 20_000, 'enough was said (' . length(join '', values %text) . ' bytes)';
like join('', map { $text{$_} } grep { /^log/ } keys %text), qr/ debug /, 'at level debug';
like where('pdplane_build_info'), qr/\/metrics of/, 'the search finds what is there';
is index(slurp($secret_file), $secret), 0, 'the secret is where it belongs';
is where($secrets{$_}), '', "$_ is nowhere" for sort keys %secrets;

done_testing;
