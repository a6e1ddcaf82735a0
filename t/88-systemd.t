# SPDX-License-Identifier: Apache-2.0
# The unit for systemd: what systemd itself says of it.
use strict;
use warnings;

use Test::More;

use PDPlane::Test qw(folder spew slurp srcdir run_program);

plan skip_all => 'needs systemd-analyze 250 or newer'
    unless (`systemd-analyze --version 2>/dev/null` =~ /^systemd (\d+)/ ? $1 : 0) >= 250;

my $text = slurp(srcdir() . '/contrib/systemd/pdplane@.service');
my $unit = spew('pdplane@a.service', $text);
my $score = sub { my (undef, $out) = run_program(qw(systemd-analyze security --no-pager --offline=true), $_[0]); return $out =~ /exposure level for \S+: ([\d.]+)/ ? $1 : undef };
my $is = $score->($unit);
cmp_ok $is // 10, '<=', 2.5, 'exposure level';
note "exposure level $is";
# The same without its rules is much worse, so the figure says something.
my $bare = $score->(spew('pdplane@b.service', join "\n", grep { !/^(?:Protect|Private|Restrict|NoNew|Capability|SystemCall|Memory|Lock)/ } split /\n/, $text));
cmp_ok $bare // 0, '>', 6, 'without its rules it is exposed';
$text =~ s{/usr/sbin/pdplane}{/bin/true}g;
$text =~ s{^(?:User|Group)=.*\n}{}mg;
my ($rc, $out, $err) = run_program(qw(systemd-analyze verify --man=no), spew('pdplane@c.service', $text));
unlike "$out$err", qr/pdplane\@c\.service:\d+|Unknown/, 'no setting that systemd does not know';

done_testing;
