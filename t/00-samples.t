# SPDX-License-Identifier: Apache-2.0
# The samples are correct, each as the build made it, with its folders replaced
# by those of the build; settings that stand in comments exist.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

my ($src, $build) = (srcdir(), builddir());

my $modules = module_folder();

my ($rc, $out, $err) = pdplane('-O');
my %known = map { $_ => 1 } $out =~ /^([a-z]\S*)  \(/mg;

# Settings in comments: "# name = value;", or "#name = ...".
sub commented { my ($text) = @_; return $text =~ /^[ \t]*#[ \t]*([a-z_]+)[ \t]*=[ \t]*\S/mg }
is_deeply [commented("# a = 1;\n#  text = is\n# no setting\nb = 2;\n")], ['a', 'text'], 'comments are read';

# "#name = ...", up to the end of the setting, shows what holds without the line:
# with them the text without the "#".
sub with_defaults {
    my ($text) = @_;
    my ($out, $open) = ('', -1);
    for my $line (split /^/, $text) {
        $open = 0 if $open < 0 && $line =~ /^#[a-z]\w* = /;
        if ($open >= 0) {
            $line =~ s/^#//;
            $open += ($line =~ tr/({[//) - ($line =~ tr/)}]//);
            $out .= $line;
            $open = -1 if $open <= 0;
        } else {
            $out .= $line;
        }
    }
    return $out;
}
is with_defaults("# a = 1;\n#b = { c = 1;\n# };\n# d\n"), "# a = 1;\nb = { c = 1;\n };\n# d\n", 'defaults are read';

# What a configuration means, without where it is from.  The decider and the
# profiles that hold when none are given are no rows' defaults.
sub meaning {
    my ($dump) = @_;
    my $text = join "\n", grep { /\S/ } map { s/\s*#.*//r } split /\n/, $dump;
    $text =~ s/^  (?:decider = \{|profiles = \().*?^  [})];\n//msg;
    return $text;
}

my $model = "$src/contrib/tinymodel/tiny.gguf";
for my $name (map { s{.*/(.*)\.in$}{$1}r } glob "$src/conf/*.conf.in") {
    my $file = "$build/conf/$name";
    ok -e $file, "$name was made" or next;
    my $text = slurp($file);
    unlike $text, qr/\@\w+\@/, "$name: every place was filled";
    $text =~ s/"[^"]*\/tiny\.gguf"/"$model"/g;
    my $path = spew($name, qq{module_path = [ "$modules" ];\n$text});
    ($rc, $out, $err) = pdplane('-t', '-c', $path);
    is $rc, 0, "$name is correct" or diag $err;
    is $err, '', "$name: without a warning";
    ($rc, $out, $err) = pdplane('-T', '-c', $path);
    is $rc, 0, "$name can be dumped";
    my $plain = meaning($out);
    my $full = with_defaults($text);
    isnt $full, $text, "$name shows defaults";
    ($rc, $out, $err) = pdplane('-T', '-c', spew("full-$name", qq{module_path = [ "$modules" ];\n$full}));
    is $rc, 0, "$name is correct with them" or diag $err;
    is meaning($out), $plain, 'and means the same';
    for my $key (commented($text)) {
        ok $known{$key} || grep(/\.\Q$key\E$/, keys %known), "$name: \"$key\" in a comment is an option";
    }
    # A sample breaks when a name in it does.
    (my $broken = slurp($path)) =~ s/\bload\b/laod/;
    ($rc, $out, $err) = pdplane('-t', '-c', spew("broken-$name", $broken));
    is $rc, 1, "$name: a misspelt name is found";
}

# Examples in pages are configurations, too.
sub examples_of_page {
    my ($page) = @_;
    my @found;
    while ($page =~ /^\.Bd -literal -offset indent\n(.*?)^\.Ed/msg) {
        my $text = $1;
        push @found, $text if $text =~ /^load\b/m;
    }
    return @found;
}
my $n = 0;
for my $page ('pd.conf.5', 'pd_modules.7') {
    for my $text (examples_of_page(slurp("$build/doc/man/$page"))) {
        $n++;
        spew('secret', "secret\n", 0600);
        $text =~ s/secret_file = "[^"]*"/secret_file = "secret"/;
        $text =~ s/"[^"]*\btiny\.gguf"/"$model"/;
        ($rc, $out, $err) = pdplane('-t', '-c', spew("example-$n", qq{module_path = [ "$modules" ];\n$text}));
        is $rc, 0, "example $n, of $page" or diag $err;
    }
}
cmp_ok $n, '>=', 4, 'examples were found';

# The example of the operator who writes a scheduler section only.
my ($scheduler) = slurp("$build/doc/man/pd.conf.5") =~ /^(scheduler = \{.*?^\};)/ms;
($rc, $out, $err) = pdplane('-t', '-c', spew('scheduler', qq{module_path = [ "$modules" ];\nload = [ "router", "least_loaded" ];\n$scheduler\n}));
is $rc, 0, 'the scheduler of pd.conf(5)' or diag $err;

done_testing;
