# SPDX-License-Identifier: Apache-2.0
# The requests whose answers must be the same everywhere, with what another
# program computed from the same model (contrib/tinymodel/golden.json).
package PDPlane::Golden;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP ();

use Test::More;

use PDPlane::Test qw(srcdir slurp);

our @EXPORT_OK = qw(differing golden greedy seeded text_of);

my $golden;

# All of them, or four when PD_TEST_SHORT is set.
sub golden {
    $golden //= JSON::PP->new->utf8->decode(slurp(srcdir() . '/contrib/tinymodel/golden.json'))->{prompts};
    return $ENV{PD_TEST_SHORT} ? @$golden[0 .. 3] : @$golden;
}

# [PATH, BODY] of a golden prompt with some members added.
sub ask {
    my ($g, %more) = @_;
    my %body = (model => 'tiny', max_tokens => 64, %more);
    return ['/v1/completions', { %body, prompt => $g->{prompt}, logprobs => 2 }] if defined $g->{prompt};
    return ['/v1/chat/completions', { %body, messages => [ { role => 'user', content => $g->{user} } ],
        logprobs => JSON::PP::true, top_logprobs => 2 }];
}

sub greedy { return map { ask($_, temperature => 0) } golden() }

sub seeded {
    my $seed = 1000;
    return map { ask($_, temperature => 0.9, top_p => 0.95, seed => ++$seed, max_tokens => 24) } golden();
}

# The text of an answer's first choice.
sub text_of {
    my ($r) = @_;
    return "status " . ($r->{status} // $r->{error}) unless ($r->{status} // 0) == 200;
    my $c = JSON::PP->new->utf8->decode($r->{body})->{choices}[0];
    return $c->{text} // $c->{message}{content};
}

# How many answers differ from what is expected.
sub differing {
    my ($got, $expected) = @_;
    my @bad = grep { $got->[$_] ne $expected->[$_] } 0 .. $#$expected;
    diag sprintf "request %d: got %.300s\nexpected %.300s", $_, $got->[$_], $expected->[$_] for @bad[0 .. ($#bad > 1 ? 1 : $#bad)];
    return scalar @bad;
}

1;
