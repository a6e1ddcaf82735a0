#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# embed-page.pl NAME FILE.html: writes C source with the page as `NAME` and its
# Content-Security-Policy as `NAME_csp`.  The policy lets run exactly the style
# and the script that stand in the page, and fetch from where it came.
use strict;
use warnings;

use Digest::SHA qw(sha256_base64);

my ($name, $file) = @ARGV;
die "usage: embed-page.pl NAME FILE\n" unless defined $file;
open my $in, '<:raw', $file or die "$file: $!\n";
my $page = do { local $/; <$in> };

sub hash_of {
    my ($tag) = @_;
    my @found = $page =~ m{<$tag>(.*?)</$tag>}gs;
    die "$file: exactly one <$tag> is expected\n" if @found != 1;
    my $digest = sha256_base64($found[0]);
    $digest .= '=' while length($digest) % 4;
    return "'sha256-$digest'";
}
my $csp = "default-src 'none'; style-src " . hash_of('style') . "; script-src " . hash_of('script')
    . "; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

print "/* SPDX-License-Identifier: Apache-2.0 */\n/* Made from " . ($file =~ m{([^/]+)$})[0] . "; do not edit. */\n";
print "#include \"node/status.h\"\n\n";
print "const char $name\[] =\n";
for my $line (split /^/, $page) {
    $line =~ s/([\\"?])/\\$1/g;
    $line =~ s/\n/\\n/g;
    $line =~ s/([^\x20-\x7e])/sprintf '\\%03o', ord $1/ge;
    print "    \"$line\"\n";
}
print "    ;\nconst size_t ${name}_size = sizeof $name - 1;\nconst char ${name}_csp[] = \"$csp\";\n";
