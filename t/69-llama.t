# SPDX-License-Identifier: Apache-2.0
# The engine llama in whole nodes, with the real library: the texts of the reference
# outputs and of the engine ref on one node, divided over several, streamed, cut off by
# stop strings, in conversations; clients that leave; cells that run out; models that
# cannot be loaded.  What it is made of is tested in t/unit/test_llama_*.c.
use strict;
use warnings;

use Test::More;

use PDPlane::Daemon qw(topology until_true);
use PDPlane::Golden qw(golden greedy seeded text_of);
use PDPlane::Http qw(get post parallel open_stream json_of);
use PDPlane::Test;

plan skip_all => 'the module llama is not built: ./configure found no llama.pc'
    unless grep { m{/engine/llama/} && -e "$_/llama.so" } module_dirs();

my @golden = golden();
my @usual = (type => 'llama', engine => 'context = 2048; kv_memory = "8m";');

sub texts { my ($s, @asks) = @_; return map { text_of($_) } parallel($s->port, @asks) }
sub golden_ok {
    my ($s, $name) = @_;
    is_deeply [ texts($s, greedy()) ], [ map { $_->{text} } @golden ], "$name: the reference texts";
    return;
}
my @questions = ('Hello! Who are you?', 'Tell me a story about a fox and a kite.', 'What is two plus three?');
sub talk {
    my ($s) = @_;
    my (@messages, @out);
    for my $user (@questions) {
        push @messages, { role => 'user', content => $user };
        my $r = json_of(post($s->port, '/v1/chat/completions', { model => 'tiny', messages => \@messages,
            temperature => 0, max_tokens => 30 })->{body});
        push @out, $r->{choices}[0]{message}{content}, $r->{choices}[0]{finish_reason},
            $r->{usage}{prompt_tokens}, $r->{usage}{completion_tokens};
        push @messages, { role => 'assistant', content => $r->{choices}[0]{message}{content} };
    }
    return @out;
}
my %story = (model => 'tiny', temperature => 0, max_tokens => 60, prompt => $golden[0]{prompt});
sub sum { my ($s, $name) = @_; my $n = 0; for (@{ $s->{nodes} }) { my $m = $_->metrics; $n += $m->{$_} for grep { /^$name\{/ } keys %$m } return $n }

# ---- ref on the same model, as the measure
my $ref = topology('one');
my @talk = talk($ref);
my $stop = post($ref->port, '/v1/completions', { %story, stop => [ 'little', 'zebra' ] })->{body};
$ref->stop;

# ---- one node
my $one = topology('one', @usual);
golden_ok($one, 'one node');
golden_ok($one, 'one node, prompts in the cache');
my @seeded = texts($one, seeded());
is_deeply [ texts($one, seeded()) ], \@seeded, 'one node: the same seeds, the same texts';
is_deeply [ talk($one) ], \@talk, 'one node: conversations and their tokens as ref has them';
my $got = json_of(post($one->port, '/v1/completions', { %story, stop => [ 'little', 'zebra' ] })->{body});
is_deeply [ @{ $got->{choices}[0] }{qw(text finish_reason)}, $got->{usage} ],
    [ @{ json_of($stop)->{choices}[0] }{qw(text finish_reason)}, json_of($stop)->{usage} ], 'one node: stop strings as ref has them';
my @events = open_stream($one->port, '/v1/completions', { %story, stream => JSON::PP::true })->rest;
is pop @events, '[DONE]', 'a stream ends';
is join('', map { json_of($_)->{choices}[0]{text} // '' } @events),
    text_of(post($one->port, '/v1/completions', { %story })), 'a stream: the same text';
cmp_ok scalar @events, '>', 20, 'a stream: in parts';
is post($one->port, '/v1/chat/completions', { model => 'tiny', messages => [ { role => 'tool', content => 'x',
    tool_call_id => 'y' } ] })->{status}, 400, 'a role that the template does not know is refused';
ok $one->wait_blocks_free, 'one node: all blocks are free';

# A client that leaves.
{
    my @s = map { open_stream($one->port, '/v1/completions', { %story, prompt => "Number $_.", stream => JSON::PP::true,
        max_tokens => 1900, ignore_eos => JSON::PP::true }) } 1 .. 10;
    ok defined $_->event, 'a long stream begins' for @s[0, 1];
    $_->close for @s;
    ok until_true(20, sub { !sum($one, 'pdplane_engine_running') && !sum($one, 'pdplane_engine_waiting') }),
        'clients that leave free the slots';
    ok $one->wait_blocks_free, 'and the blocks';
    golden_ok($one, 'afterwards');
}
$one->stop;

# ---- divided
for my $case ([ '1p1d', 'shm', 'full' ], [ '2p2d', 'tcp', 'full' ], [ '1p1d', 'tcp', 'n-1' ], [ 'all', 'shm', 'full' ]) {
    my ($kind, $transport, $handover) = @$case;
    my $name = "$kind over $transport, $handover";
    my $s = topology($kind, @usual, transport => $transport, handover => $handover);
    golden_ok($s, $name);
    my $valid = $s->metric('decode', 'pdplane_decode_handovers_valid_total');
    is_deeply [ texts($s, seeded()) ], \@seeded, "$name: the seeded texts of one node";
    is_deeply [ talk($s) ], \@talk, "$name: conversations";
    cmp_ok $valid, '>=', scalar(@golden), "$name: $valid hand-overs were verified";
    my $bytes = $s->metric('decode', qq(pdplane_handover_bytes_total{transport="$transport"}));
    cmp_ok $bytes, '>', 1024 * 3500, "$name: $bytes bytes moved";
    is $s->metric('decode', "pdplane_decode_$_"), 0, "$name: no $_" for qw(handovers_failed_total fallbacks_total);
    ok $s->wait_blocks_free, "$name: all blocks are free";
    $s->stop;
}

# ---- nodes that compute otherwise hand nothing over, and answer right
{
    my $s = topology('1p1d', @usual, decode_engine => 'context = 2048; kv_memory = "8m"; flash_attention = false;');
    golden_ok($s, 'another attention');
    is $s->metric('decode', 'pdplane_decode_handovers_valid_total'), 0, 'another attention: nothing is handed over';
    $s->stop;
}

# ---- fewer cells than the requests need
{
    my $s = topology('one', type => 'llama', engine => 'context = 256; cells = 256; kv_memory = "1m"; max_running = 4;');
    my @asks = grep { my $p = $_->[1]{prompt}; !defined $p || length $p < 400 } greedy();
    my %want = map { ($_->{prompt} // $_->{user}) => $_->{text} } @golden;
    my @short = grep { length(($_->[1]{prompt} // $_->[1]{messages}[0]{content})) < 400 } @asks;
    is_deeply [ texts($s, @short) ], [ map { $want{ $_->[1]{prompt} // $_->[1]{messages}[0]{content} } } @short ],
        'few cells: the same texts of ' . @short;
    cmp_ok sum($s, 'pdplane_engine_preemptions_total'), '>', 0, 'few cells: slots were taken away';
    ok $s->wait_blocks_free, 'few cells: all blocks are free';
    is post($s->port, '/v1/completions', { %story, prompt => 'One day. ' x 200 })->{status}, 400,
        'few cells: a prompt that never fits is refused';
    $s->stop;
}

# ---- what does not start
my $model = srcdir() . '/contrib/tinymodel/tiny.gguf';
sub conf {
    my ($path, $more) = @_;
    return sprintf(qq(module_path = [ "%s" ];\n), PDPlane::Daemon::modules_folder()) . qq(load = [ "router", "decode", "llama" ];\n)
        . qq(listen = ( { address = "127.0.0.1:0"; api = "openai"; } );\n)
        . qq(engine = ( { name = "m"; type = "llama"; model = "$path"; roles = [ "decode" ]; $more } );\n);
}
my ($rc, $out, $err) = check_text(conf($model, ''));
is $rc, 0, 'a whole model passes the check' or diag $err;
my $cut = spew('cut.gguf', substr slurp($model), 0, 2_000_000);
($rc, $out, $err) = check_text(conf($cut, ''));
is $rc, 1, 'one that was cut does not';
like $err, qr/cut\.gguf.*ends before its weights do/, 'and is told what it is';
($rc, $out, $err) = check_text(conf(spew('not.gguf', 'hello'), ''));
is $rc, 1, 'nor what is no model';
($rc, $out, $err) = check_text(conf($model, 'block_tokens = 12;'));
like $err, qr/block_tokens is 12, not a multiple of 8/, 'nor blocks of any size';

my $sanitized = (pdplane('-V'))[1] !~ /^sanitizers\s+no$/m;
SKIP: {
    skip 'a sanitizer has its memory from the same limit', 2 if $sanitized;
    my $conf = spew('large.conf', conf($model, 'cells = 8000000;'));
    ($rc, $out, $err) = run_program('sh', '-c', 'ulimit -v 3000000; exec "$0" "$@"', builddir() . '/pdplane', '-D', '-c', $conf);
    is $rc, 1, 'too many cells: it ends, and not by a signal';
    like $out . $err, qr/libllama cannot make a context; smaller engine\.cells or engine\.context/, 'with a reason';
}

done_testing;
