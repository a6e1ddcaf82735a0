# SPDX-License-Identifier: Apache-2.0
# The ABI keeps what the oldest supported headers promised: t/abi/VERSION holds a
# copy of the stable headers of that version.  Every struct keeps the place of its
# members, every constant its value; modules compiled against the copy load and
# pass pdconform in this pdplane.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

my $src = srcdir();
my @cc = split ' ', $ENV{CC} // 'cc';
my ($rc, $out, $err) = run_program(@cc, '--version');
plan skip_all => "no C compiler \"@cc\"" if $rc ne 0;
my @versions = map { m{([\d.]+)$} } grep { -d } glob "$src/t/abi/*";
cmp_ok scalar @versions, '>=', 1, 'copies of headers';

# Structs with their members, and constants, as the headers have them.
sub facts {
    my ($dir) = @_;
    my (%members, %constants);
    for my $file (sort glob "$dir/pdplane/*.h") {
        my $text = slurp($file);
        $text =~ s{/\*.*?\*/}{ }gs;
        $constants{$_} = 1 for $text =~ /\bX\((PD_\w+), -?\d+,/g;
        $constants{$_} = 1 for grep { $_ ne 'PD_ABI_MINOR' } $text =~ /^#define (PD_[A-Z0-9_]+) (?:0x)?[0-9a-f]+u?\s*$/mg;
        $text =~ s/^[ \t]*#.*?(?<!\\)$//gms;
        while ($text =~ /\benum\s*\{(.*?)\}/gs) {
            $constants{$_} = 1 for $1 =~ /\b(PD_[A-Z0-9_]+)\b\s*(?=[=,]|\s*$)/g;
        }
        while ($text =~ /\bstruct\s+(pd_\w+)\s*(\{(?:[^{}]|(?2))*\})\s*;/g) {
            my ($struct, $body) = ($1, $2);
            $body =~ s/\A\{|\}\z//g;
            $body =~ s/\{(?:[^{}]|\{[^{}]*\})*\}/{}/g;     # what is inside of members
            for my $line (split /;/, $body) {
                next if $line =~ /:\s*\d+\s*$/;
                if ($line =~ /\(\s*\*\s*(\w+)\s*\)/) { push @{ $members{$struct} }, $1 }
                else {
                    # int a, *b, c[4]
                    for my $part (split /,/, $line) {
                        push @{ $members{$struct} }, $1 if $part =~ /(\w+)\s*(?:\[[^\]]*\])*\s*\z/;
                    }
                }
            }
        }
    }
    return (\%members, \%constants);
}

# name => number, as a compiler sees them with these headers.
sub numbers {
    my ($dir, $members, $constants) = @_;
    my @headers = map { m{([^/]+)$} } sort glob "$dir/pdplane/*.h";
    my $code = join '', "#include <stdio.h>\n#include <stddef.h>\n", map { "#include <pdplane/$_>\n" } @headers;
    $code .= "int main(void)\n{\n";
    for my $s (sort keys %$members) {
        $code .= qq(    printf("sizeof $s %zu\\n", sizeof(struct $s));\n);
        $code .= qq(    printf("$s.$_ %zu %zu\\n", offsetof(struct $s, $_), sizeof(((struct $s *)0)->$_));\n) for @{ $members->{$s} };
    }
    $code .= qq(    printf("$_ %lld\\n", (long long)$_);\n) for sort keys %$constants;
    $code .= "    return 0;\n}\n";
    my $program = folder() . '/numbers';
    my ($rc, $out, $err) = run_program(@cc, '-std=gnu11', '-w', "-I$dir", '-o', $program, spew('numbers.c', $code));
    return (undef, $err) if $rc ne 0;
    ($rc, $out) = run_program($program);
    return ({ map { /^(sizeof \S+|\S+) (.*)$/ ? ($1 => $2) : () } split /\n/, $out }, '');
}

my $modules = folder() . '/modules';
mkdir $modules, 0755 or die $!;
my $kit = $ENV{PD_CONFORM} // builddir() . '/pdconform';
for my $version (@versions) {
    my $dir = "$src/t/abi/$version";
    my ($members, $constants) = facts($dir);
    cmp_ok scalar(keys %$members), '>', 60, "$version: " . keys(%$members) . ' structs';
    cmp_ok scalar(keys %$constants), '>', 100, "$version: " . keys(%$constants) . ' constants';
    my ($old, $why) = numbers($dir, $members, $constants);
    ok defined $old, "$version: the copy compiles" or diag $why;
    (my $new, $why) = numbers("$src/core/include", $members, $constants);
    ok defined $new, "$version: every member and constant is there" or diag $why;
    next unless defined $old && defined $new;
    # A struct may grow at its end; nothing else may change.
    my @bad = grep { !/^sizeof / && $old->{$_} ne $new->{$_} } sort keys %$old;
    is_deeply [map { "$_: $old->{$_}, today $new->{$_}" } @bad], [], "$version: each has its place, size or value";
    @bad = grep { /^sizeof / && $new->{$_} < $old->{$_} } sort keys %$old;
    is_deeply \@bad, [], "$version: no struct is smaller";

    # Modules of that version.
    for my $kind (map { m{/([^/_]+)\.c$} } sort glob "$src/contrib/skeleton/*.c") {
        my $name = "old_$kind";
        my $so = "$modules/$name.so";
        # Some have more files than one: transport.h, transport_owner.c.
        my @files;
        for my $source (glob "$src/contrib/skeleton/{$kind,${kind}_*}.[ch]") {
            my ($file) = $source =~ m{/\Q$kind\E([^/]*)$};
            (my $text = slurp($source)) =~ s/\@NAME\@/$name/g;
            push @files, spew("$name$file", $text);
        }
        ($rc, $out, $err) = run_program(@cc, qw(-std=gnu11 -O1 -w -fPIC -fvisibility=hidden -shared), "-I$dir", '-o', $so,
            grep { /\.c$/ } @files);
        is $rc, 0, "$version $kind: compiles" or diag $err;
        next if $rc ne 0;
        chmod 0755, $so;
        ($rc, $out, $err) = run_program($kit, $so);
        is $rc, 0, "$version $kind: loads and keeps its contract" or diag $out =~ /^(not ok.*\n(?:#.*\n)*)/mg, $err;
    }
}

# A change is noticed: the same comparison with a member moved.
{
    my $bad = folder() . '/bad';
    for my $file (glob "$src/t/abi/$versions[0]/pdplane/*.h") {
        my ($name) = $file =~ m{([^/]+)$};
        (my $text = slurp($file)) =~ s/(struct pd_memory_desc \{\n    uint32_t size;\n)/${1}    uint64_t moved;\n/;
        spew("$bad/pdplane/$name", $text);
    }
    my ($members, $constants) = facts("$src/t/abi/$versions[0]");
    my ($old) = numbers("$src/t/abi/$versions[0]", $members, $constants);
    my ($new) = numbers($bad, $members, $constants);
    ok scalar(grep { /^pd_memory_desc\./ && $old->{$_} ne $new->{$_} } keys %$old), 'a member that moved is noticed';
}

done_testing;
