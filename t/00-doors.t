# SPDX-License-Identifier: Apache-2.0
# Each dependency and each contact with the outer world has one door.
use strict;
use warnings;

use Test::More;

use PDPlane::House;
use PDPlane::Test;

my $bad = folder() . '/bad';
my %broken = (
    'libuv' => 'uv_run(l, 0);', 'libconfig' => 'config_init(&c);', 'OpenSSL' => '#include <openssl/evp.h>',
    'llhttp' => 'llhttp_init(&p, t, s);', 'xxHash' => 'h = XXH3_64bits(p, n);', 'dlopen' => 'p = dlsym(d, "x");',
    'the clock' => 't = time(NULL);', 'sockets' => 'int s = socket(1, 2, 3);', 'waiting' => 'poll(f, 1, 2);', 'randomness' => 'return rand();',
    'threads' => 'pthread_create(&t, 0, f, 0);', 'processes' => 'if (fork() == 0)', 'malloc' => 'p = malloc(3);',
);
for my $name (sort keys %broken) {
    (my $file = $name) =~ s/\W/_/g;
    spew "$bad/core/api/$file.c", "/* a comment\n */\n$broken{$name}\n";
    is_deeply [doors($bad)], ["core/api/$file.c:3: uses $name outside of its door"], "$name is found";
    unlink "$bad/core/api/$file.c" or die;
}
spew "$bad/core/api/good.c", <<'EOT';
/* malloc(3) in a comment, and fork() */
// time(NULL)
puts("socket(1) \" malloc(3)");
loop->ops->connect(loop, to); x.free(y); pd_free(z); runtime(1); // uv_run(l)
void (*free)(void *p);
EOT
spew "$bad/modules/engine/e/e.c", "p = malloc(3);\n";
spew "$bad/core/loop/l.c", "uv_run(l, 0); clock_gettime(0, &t);\n";
is_deeply [doors($bad)], [], 'comments, strings, members and the doors themselves are not';
spew "$bad/modules/engine/e/e.c", "time(0);\n";
is_deeply [doors($bad)], ['modules/engine/e/e.c:1: uses the clock outside of its door'], 'modules too';

my @found = doors(srcdir());
is join("\n", @found), '', 'every dependency goes through its door';

done_testing;
