# SPDX-License-Identifier: Apache-2.0
# Completion of bash: what is offered is what the programs know.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

my $bash = qx(command -v bash 2>/dev/null);
plan skip_all => 'bash is not installed' if $bash eq '';
my $file = srcdir() . '/contrib/completion/pdplane.bash';
my $build = builddir();

# What is offered for the last of these words.
sub offered {
    my ($tool, @words) = @_;
    my $n = @words;
    my $list = join ' ', map { "'$_'" } "$build/$tool", @words;
    my ($rc, $out, $err) = run_program('bash', '-c',
        ". '$file'; COMP_WORDS=($list); COMP_CWORD=$n; _pdplane_tools; printf '%s\\n' \"\${COMPREPLY[@]}\"");
    is $err, '', "$tool @words: without a complaint";
    return grep { /\S/ } split /\n/, $out;
}
sub known { my ($tool, @a) = @_; my ($rc, $out) = run_program("$build/$tool", @a, '--help'); return $out }

for my $tool (qw(pdplane pdctl pdconform pdbench pdsim)) {
    my $help = known($tool);
    my %long = map { $_ => 1 } $help =~ /^  (?:-\S, )?(--[a-z-]+)/mg;
    cmp_ok scalar(keys %long), '>=', 2, "$tool: long options";
    my %offered = map { $_ => 1 } offered($tool, '--');
    is_deeply [sort keys %offered], [sort keys %long], "$tool: all of them are offered";
}
for my $tool (qw(pdctl pdbench)) {
    my ($part) = known($tool) =~ /^commands:\n(.*?)\n\n/ms;
    my @commands = $part =~ /^ +([a-z]+)/mg;
    cmp_ok scalar(@commands), '>=', 2, "$tool: commands";
    my %offered = map { $_ => 1 } offered($tool, '');
    is_deeply [grep { !$offered{$_} } @commands], [], "$tool: all of them are offered";
    is_deeply [grep { !/^\Q$commands[0]\E/ } offered($tool, $commands[0])], [], "$tool: a beginning is completed";
}
is_deeply [sort(offered('pdplane', '-s', ''))], [qw(drain reload stop upgrade)], 'signals of pdplane';
is_deeply [offered('pdplane', '-s', 're')], ['reload'], 'one of them';
ok grep({ $_ eq 'scorer' } offered('pdconform', '-k', 's')), 'kinds of pdconform';
is_deeply [offered('pdctl', 'log', 'de')], ['debug'], 'levels of pdctl log';
is_deeply [offered('pdctl', 'module', '')], ['new'], 'pdctl module';
ok grep({ $_ eq '--kind' } offered('pdctl', 'module', 'new', 'x', '--k')), 'and its options';
ok grep({ $_ eq '--url' } offered('pdbench', 'load', '--u')), 'options of a command of pdbench';
is_deeply [offered('pdbench', 'co')], ['codec'], 'a command of pdbench';
is_deeply [sort(offered('pdbench', 'codec', '-d', ''))], [qw(bf16 f16 f32 f8)], 'types of pdbench codec';
is_deeply [offered('pdbench', 'codec', '-d', 'b')], ['bf16'], 'one of them';
ok grep({ $_ eq '--dtypes' } offered('pdbench', 'codec', '--d')), 'and its options';
is_deeply [offered('pdsim', '--arrival', 'b')], ['bursty'], 'a kind of arrival of pdsim';
is_deeply [sort(offered('pdsim', '-L', ''))], [qw(exponential fixed)], 'its kinds of lengths';
spew('some.conf', '');
my $dir = folder();
is_deeply [offered('pdplane', '-c', "$dir/so")], ["$dir/some.conf"], 'files';

SKIP: {
    skip 'zsh is not installed', 1 if qx(command -v zsh 2>/dev/null) eq '';
    my ($rc, $out, $err) = run_program('zsh', '-n', srcdir() . '/contrib/completion/_pdplane');
    is "$rc$err", '0', 'the syntax of that for zsh';
}

done_testing;
