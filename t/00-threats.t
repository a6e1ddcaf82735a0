# SPDX-License-Identifier: Apache-2.0
# What the threat model and the chapter on failures say is there: the tests they
# name and the words in them, metrics, log lines, codes and options.
use strict;
use warnings;

use Test::More;

use PDPlane::Test qw(srcdir slurp);

my $src = srcdir();
my @sources = grep { !m{/t/} } map { glob "$src/$_" } qw(core/*/*.c core/*/*.h core/*/*/*.h modules/*/*.c modules/*/*/*.c modules/*/*/*/*.c);
my $code = join "\n", map { slurp($_) } @sources;
# Texts that are written over several lines are one.
(my $texts = $code) =~ s/"\s*\n\s*"//g;

sub cells { my ($row) = @_; my @c = split /\s*\|\s*/, $row; shift @c; return @c }

# Rows of the tables of a page, without their heads.
sub rows {
    my ($text) = @_;
    my @lines = split /\n/, $text;
    return map { [ cells($lines[$_]) ] } grep { $lines[$_] =~ /^\|(?! ?-)/ && $lines[$_ + 1] !~ /^\|-/ } 0 .. $#lines - 1;
}

# What is wrong with "`file`: words"; '' when nothing.
sub test_wrong {
    my ($cell) = @_;
    my ($file, $words) = $cell =~ /^`([^`]+)`: (.+)$/ or return "\"$cell\" names no test";
    return "$file is not there" unless -f "$src/$file";
    (my $text = slurp("$src/$file")) =~ s/\\'/'/g;
    return index($text, $words) >= 0 ? '' : "$file does not hold \"$words\"";
}

sub metric_is_there {
    my ($name) = @_;
    return 1 if index($code, "\"$name\"") >= 0;
    my ($short) = $name =~ /^pdplane_(.*)/;
    return $code =~ /ROW\("\Q$short\E"/ || $code =~ /"\Q$short\E"/;
}

isnt test_wrong('`t/none.t`: x'), '', 'a test that is missing is noticed';
isnt test_wrong('`t/85-limits.t`: words that nobody ever wrote, ' . 'here'), '', 'and words that are';
ok !metric_is_there('pdplane_no_such_' . 'thing_total'), 'and a metric';

my @threats = rows(slurp("$src/doc/dev/threat-model") . "\nend\n");
cmp_ok scalar @threats, '>', 20, 'rules of the threat model';
is test_wrong($_->[2]), '', "threat model: $_->[1]" for @threats;

my @failures = rows(slurp("$src/doc/guide/failures.md") . "\nend\n");
cmp_ok scalar @failures, '>', 20, 'failures';
for my $row (@failures) {
    my ($what, $seen, $tells, $do, $test) = @$row;
    is test_wrong($test), '', "failures: $what";
    for my $word ($tells =~ /`([^`]+)`/g) {
        if    ($word =~ /^pdplane_/) { ok metric_is_there($word), "$what: metric $word" }
        elsif ($word =~ m{^/})       { like $code, qr/"\Q$word\E"/, "$what: path $word" }
        else                         { ok index($texts, $word) >= 0, "$what: the log says \"$word\"" }
    }
    for my $word ($seen =~ /`([a-z_]+)`/g) { like $code, qr/"\Q$word\E"|"retry-after"/, "$what: $word" }
}

done_testing;
