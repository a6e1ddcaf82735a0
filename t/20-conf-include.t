# SPDX-License-Identifier: Apache-2.0
# Files that include others: @include lines and the setting include.
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

sub check {
    my ($file) = @_;
    my ($rc, $out, $err) = pdplane('-T', '-c', folder() . "/$file");
    my $dir = quotemeta folder();
    s/$dir\///g for $out, $err;
    return ($rc, $out, $err);
}

# Each file finds what it includes beside itself, whatever the current folder.
spew 'a.conf', qq{drain = "1s";\n\@include "sub/b.conf"\ncontrol = "c";\n};
spew 'sub/b.conf', qq{node = {\n  \@include "deep/c.conf"\n};\n  \@include   "d.conf"  # comment};
spew 'sub/deep/c.conf', qq{name = "from c";\n};
spew 'sub/d.conf', qq{\nlog = { level = "info"; };};
my ($rc, $out, $err) = check('a.conf');
is $rc, 0, 'nested files in other folders' or diag $err;
like $out, qr/^drain = "1s";\s+# a\.conf:1$/m, 'place in the first file';
like $out, qr/^  name = "from c";\s+# sub\/deep\/c\.conf:1$/m, 'place in the innermost file';
like $out, qr/^  level = "info";\s+# sub\/d\.conf:2$/m, 'place in a later file';
like $out, qr/^control = "c";\s+# a\.conf:3$/m, 'place behind an included file';
like $out, qr/^# effective configuration, read from a\.conf sub\/b\.conf sub\/deep\/c\.conf sub\/d\.conf$/m,
    'all files are named';

spew 'sub/d.conf', qq{\n\nlog = { levle = "info"; };\n};
($rc, $out, $err) = check('a.conf');
like $err, qr/^sub\/d\.conf:3: error: unknown option "levle"/m, 'an error in an included file';
spew 'sub/d.conf', qq{log = {\n};\ndrain = "2s";\n};
($rc, $out, $err) = check('a.conf');
like $err, qr/^sub\/d\.conf:3: error: option "drain" is given a second time \(first at a\.conf:1\)/m,
    'a duplicate in two files';
spew 'sub/d.conf', qq{log = {\n};};
spew 'sub/deep/c.conf', "name = \"x\"; };\n";
($rc, $out, $err) = check('a.conf');
like $err, qr/^sub\/deep\/c\.conf:1: error: "}" closes nothing/m, 'a bracket that belongs to another file';

spew 'e.conf', qq{\n\@include "missing.conf"\n};
($rc, $out, $err) = check('e.conf');
is $rc, 1, 'a missing file';
like $err, qr/missing\.conf/, 'a missing file is named';
like $err, qr/e\.conf:2|missing\.conf/, 'and where it was asked for';
spew 'self.conf', qq{\@include "self.conf"\n};
($rc, $out, $err) = check('self.conf');
is $rc, 1, 'a file that includes itself';
like $err, qr/^self\.conf:1: error: files include each other more than 10 levels deep$/m, 'is found out';
spew 'star.conf', qq{\@include "*.conf"\n};
($rc, $out, $err) = check('star.conf');
like $err, qr/^star\.conf:1: error: \@include takes one file, "\*\.conf" is a pattern\n  hint: write include = /m,
    'a pattern';
spew 'mid.conf', qq{drain = "1s"; \@include "sub/d.conf"\n};
($rc, $out, $err) = check('mid.conf');
like $err, qr/^mid\.conf:1: error: \@include is not understood here/m, 'not at the start of a line';
spew 'text.conf', qq{node = { name = "\n\@include \\"x\\"\n"; };\n/*\n\@include "y"\n*/\n# \@include "z"\n};
($rc, $out, $err) = check('text.conf');
is $rc, 0, '@include in strings and comments is text' or diag $err;

# The setting include: patterns, lists grow, other values must be new.
spew 'main.conf', qq{include = [ "conf.d/*.conf" ];\npeers = ( { address = "m:1"; } );\n};
spew 'conf.d/20.conf', qq{peers = ( { address = "b:1"; } );\n};
spew 'conf.d/10.conf', qq{peers = ( { address = "a:1"; } );\nlog = { level = "warn"; };\n};
spew 'conf.d/other.txt', "not read {\n";
($rc, $out, $err) = check('main.conf');
is $rc, 0, 'a pattern' or diag $err;
like $out, qr/"m:1".*"a:1".*"b:1"/s, 'lists are joined in order';
like $out, qr/level = "warn";\s+# conf\.d\/10\.conf:2$/m, 'other values are taken';
spew 'conf.d/30.conf', qq{include = "../more.conf";\n};
spew 'more.conf', qq{drain = "7s";\n};
($rc, $out, $err) = check('main.conf');
like $out, qr/^drain = "7s";\s+# conf\.d\/\.\.\/more\.conf:1$/m, 'included files include others';
spew 'conf.d/40.conf', qq{\n\nlog = { };\n};
($rc, $out, $err) = check('main.conf');
is $rc, 1, 'a group in two files';
like $err, qr/^conf\.d\/40\.conf:3: error: option "log" is given a second time \(first at conf\.d\/10\.conf:2\)/m,
    'is an error';
spew 'none.conf', qq{include = [ "nowhere/*.conf" ];\n};
is((check('none.conf'))[0], 0, 'a pattern may match nothing');
spew 'none.conf', qq{\ninclude = [ "nowhere.conf" ];\n};
($rc, $out, $err) = check('none.conf');
like $err, qr/^none\.conf:2: error: included file "nowhere\.conf" does not exist/m, 'a plain name must exist';
spew 'loop.conf', qq{include = "loop.conf";\n};
($rc, $out, $err) = check('loop.conf');
is $rc, 1, 'a setting that includes itself';

done_testing;
