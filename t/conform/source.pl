# SPDX-License-Identifier: Apache-2.0
# Changes the world of a source for pdconform -x:
#   perl source.pl FORM PATH set 1 2 3   the servers of these numbers, and no others
#                            twice 1 2   each of them twice
#                            bad 1 2     these, and something that is no server
#                            lose        the source cannot be read
# FORM is lines (for broken_discovery), json (for the module file) or kube (PATH is
# the folder of a PDPlane::FakeKube).
use strict;
use warnings;

my ($form, $path, $verb, @numbers) = @ARGV;
if ($form eq 'kube') {
    require PDPlane::FakeKube;
    PDPlane::FakeKube::mode($path, $verb eq 'lose' ? 'lose' : 'ok');
    PDPlane::FakeKube::set($path, [ @numbers, $verb eq 'bad' ? '0.0.0.0' : () ], twice => $verb eq 'twice') if $verb ne 'lose';
    exit 0;
}
exit !unlink $path if $verb eq 'lose' && -e $path;
exit 0 if $verb eq 'lose';
@numbers = map { ($_, $_) } @numbers if $verb eq 'twice';
my $text;
if ($form eq 'lines') {
    $text = join(' ', @numbers, $verb eq 'bad' ? 'x' : ()) . "\n";
} else {
    my @list = map { qq({ "name": "n$_", "url": "http://127.0.0.$_:8000" }) } @numbers;
    push @list, '{ "name": "bad", "url": "gopher://nowhere" }' if $verb eq 'bad';
    $text = '{ "endpoints": [ ' . join(', ', @list) . " ] }\n";
}
open my $out, '>', "$path.new" or die "$path: $!";
print $out $text;
close $out or die "$path: $!";
rename "$path.new", $path or die "$path: $!";
