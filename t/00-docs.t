# SPDX-License-Identifier: Apache-2.0
# Pages say what the program does: options, rows, names of files, the example.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

my ($src, $build) = (srcdir(), builddir());

# A manual page as the build made it.
sub page { my ($name) = @_; return slurp("$build/doc/man/$name") }

# The paths of options in what -O says: "link.secret  (secret)".
sub rows { my ($text) = @_; return $text =~ /^([a-z]\S*)  \(/mg }

# Paths that an mdoc list has.
sub items { my ($text) = @_; return map { s/\\&//gr } $text =~ /^\.It Ic (\S+)/mg }

# Which words of one list are not in another.
sub missing {
    my ($want, $have) = @_;
    my %have = map { $_ => 1 } @$have;
    return grep { !$have{$_} } @$want;
}

is_deeply [missing(['a', 'b'], ['b'])], ['a'], 'a missing word is noticed';
is_deeply [rows("a.b  (string)\n    c  (d)\n")], ['a.b'], 'rows are told from their help';

# Options of the core.
my ($rc, $out, $err) = pdplane('-O');
is $rc, 0, '-O' or diag $err;
my @rows = rows($out);
cmp_ok scalar @rows, '>', 40, 'rows of the core';
is_deeply [missing(\@rows, [items(page('pd.conf.5'))])], [], 'all are in pd.conf(5)';
is_deeply [missing([items(page('pd.conf.5'))], \@rows)], [], 'and no others';

# Options of modules: each unit has a subsection of its own.
my %section = page('pd_modules.7') =~ /^\.Ss (\w+ "?\w+"?)\n(.*?)(?=^\.S[sh] )/msg;
$section{ s/"//gr } = delete $section{$_} for keys %section;
my $units = 0;
for my $module (map { glob "$_/*.so" } module_dirs()) {
    ($rc, $out, $err) = pdplane('-O', $module);
    is $rc, 0, "-O $module" or diag $err;
    for my $part (split /\n(?=\w+ "\w+": )/, $out) {
        my ($kind, $name) = $part =~ /^(\w+) "(\w+)": / or next;
        $units++;
        my $text = $section{"$kind $name"};
        ok defined $text, "$kind $name is in pd_modules(7)" or next;
        is_deeply [missing([rows($part)], [items($text)])], [], "$kind $name: all options are";
    }
}
cmp_ok $units, '>', 15, 'units of modules';

# The command line: the table of long options, --help, the page.
my ($table) = slurp("$src/core/main/options.c") =~ /long_options\[\] = \{(.*?)\n\};/s;
my %letter = $table =~ /\{ "([a-z-]+)", \w+, NULL, '(\w)' \}/g;
cmp_ok scalar keys %letter, '>', 10, 'options of pdplane';
(my $rc_help, my $help) = pdplane('--help');
is $rc_help, 0, '--help';
my $page = page('pdplane.8');
for my $long (sort keys %letter) {
    if ($long eq 'mdoc') {
        like $help, qr/--mdoc/, '--mdoc in --help';
        like $page, qr/Fl -mdoc/, '--mdoc in pdplane(8)';
        next;
    }
    like $help, qr/^  -$letter{$long}, --$long\b/m, "-$letter{$long} and --$long in --help";
    like $page, qr/^\.It Fl $letter{$long} .*Fl -$long\b/m, "-$letter{$long} and --$long in pdplane(8)";
}
my ($signals) = slurp("$src/core/main/options.c") =~ /signals\[\] = \{(.*?)\}/;
for my $word ($signals =~ /"(\w+)"/g) {
    like $help, qr/pdplane -s .*\b$word\b/, "-s $word in --help";
    like $page, qr/^\.Cm $word$/m, "-s $word in pdplane(8)";
}

# Syntax of pages.
SKIP: {
    my @pages = (glob("$build/doc/man/*.[1-8]"), glob("$src/doc/man/*.[1-8]"));
    cmp_ok scalar @pages, '>=', 3, 'pages';
    skip 'mandoc is not installed', scalar @pages if system('command -v mandoc >/dev/null 2>&1') != 0;
    for my $file (@pages) {
        my ($bad, $lint) = run_program('mandoc', '-Tlint', '-W', 'warning', $file);
        # A page of this package that is not installed is no mistake.
        $lint = join '', grep { !/referenced manual not found/ } $lint =~ /.*\n/g;
        is $lint, '', "mandoc: $file";
    }
}

# Files that pages for readers name.
for my $name ('README.md', glob("$src/doc/guide/*.md"), "$src/doc/dev/map.md", "$src/doc/dev/layers") {
    my $path = $name =~ m{^/} ? $name : "$src/$name";
    my $text = slurp($path);
    my @named = $text =~ m{`((?:core|modules|conf|contrib|doc|t)/[\w./-]*\w/?)`}g;
    push @named, $text =~ m{^    (contrib/\w+)}mg;
    my @gone = grep { !m{/(?:KIND|NAME)\b} && !-e "$src/$_" } @named;
    is_deeply \@gone, [], "$name names what is there (" . @named . ')';
}
my @decisions = slurp("$src/doc/dev/decisions/README.md") =~ /\]\(([\w-]+\.md)\)/g;
my @files = grep { $_ ne 'README.md' } map { s{.*/}{}r } glob "$src/doc/dev/decisions/*.md";
is_deeply [sort @decisions], [sort @files], 'the list of decisions';
# A file that nobody lists is missing in a distribution.
my $listed = slurp("$src/doc/doc.am");
my @kept = map { s{^\Q$src\E/doc/}{}r } grep { -f } glob "$src/doc/guide/* $src/doc/dev/* $src/doc/dev/*/*";
is_deeply [ grep { $listed !~ m{%D%/\Q$_\E(?:\s|$)} } @kept ], [], 'documents are distributed: doc/doc.am names them';

# The example of the guide is the one in contrib, and it compiles outside.
my $example = slurp("$src/contrib/example-module/spare_blocks.c");
my ($shown) = slurp("$src/doc/guide/module.md") =~ /```c\n(.*?)```/s;
is $shown, $example, 'the guide shows the example as it is';
my @cc = split ' ', $ENV{CC} // 'cc';
my $so = folder() . '/spare_blocks.so';
($rc, $out, $err) = run_program(@cc, qw(-std=c11 -Wall -Wextra -Werror -O2 -fPIC -fvisibility=hidden -shared),
    '-Wl,-z,defs', "-I$src/core/include", '-o', $so, "$src/contrib/example-module/spare_blocks.c");
SKIP: {
    skip "no compiler \"@cc\"", 3 if $rc eq 127;
    is $rc, 0, 'the example compiles against the public headers' or diag $err;
    chmod 0755, folder(), $so;
    ($rc, $out, $err) = pdplane('-O', $so);
    is $rc, 0, 'and is taken' or diag $err;
    my ($expected) = slurp("$src/doc/guide/module.md") =~ /```\n(scorer .*?)```/s;
    is $out, $expected, 'the guide shows its options as they are';
}

done_testing;
