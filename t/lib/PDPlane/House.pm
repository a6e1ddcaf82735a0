# SPDX-License-Identifier: Apache-2.0
# The rules of the house as functions: each takes the root of a source tree and
# returns a list of complaints, "FILE:LINE: what is wrong".  The tests t/00-*.t
# run them over this tree, and over small bad trees to see that they can fail.
package PDPlane::House;

use strict;
use warnings;

use Exporter 'import';
use PDPlane::Test qw(slurp sources);

our @EXPORT = qw(ranks layers circles public_includes module_includes doors spdx exported_symbols);

# Code without comments and without the content of strings; lines stay lines.
sub code_of {
    my ($text) = @_;
    $text =~ s{
        (/\*.*?\*/) | (//[^\n]*) | ("(?:[^"\\\n]|\\.)*") | ('(?:[^'\\\n]|\\.)*')
    }{
        my $m = defined $3 ? '""' : defined $4 ? "' '" : ' ';
        my $all = $1 // $2 // $3 // $4;
        $m . "\n" x ($all =~ tr/\n//);
    }gsex;
    return $text;
}

# [line, kind ('"' or '<'), name] of each include.
sub includes_of {
    my ($root, $path) = @_;
    my ($n, @found) = (0);
    for my $line (split /\n/, slurp("$root/$path")) {
        $n++;
        push @found, [$n, $1, $2] if $line =~ /^\s*#\s*include\s*(["<])([^">]+)[">]/;
    }
    return @found;
}

# Folder => rank, from the table in doc/dev/layers.
sub ranks {
    my ($root) = @_;
    my %rank;
    for my $line (split /\n/, slurp("$root/doc/dev/layers")) {
        next unless $line =~ /^rank (\d+)\s+(.+)$/;
        my ($r, $folders) = ($1, $2);
        $rank{$_} = $r for split ' ', $folders;
    }
    return %rank;
}

sub layers {
    my ($root) = @_;
    my %rank = ranks($root);
    my @bad;
    for my $path (sources($root, 'c|h', 'core')) {
        next if $path =~ m{^core/include/};
        my ($folder) = $path =~ m{^core/([^/]+)/};
        push @bad, "$path:1: folder has no rank in doc/dev/layers" and next
            unless defined $folder && defined $rank{$folder};
        for my $include (includes_of($root, $path)) {
            my ($line, $kind, $name) = @$include;
            next if $kind eq '<' || $name eq 'config.h' || $name =~ m{^pdplane/};
            my ($to) = $name =~ m{^([^/]+)/};
            if (!defined $to) {
                push @bad, "$path:$line: \"$name\" is not written with its folder";
            } elsif (!defined $rank{$to}) {
                push @bad, "$path:$line: \"$name\" is in no folder of core";
            } elsif ($to ne $folder && $rank{$to} >= $rank{$folder}) {
                push @bad, "$path:$line: $folder (rank $rank{$folder}) includes \"$name\" (rank $rank{$to})";
            }
        }
    }
    return @bad;
}

# Headers that include each other in a circle.
sub circles {
    my ($root) = @_;
    my (%edges, %state, @bad);
    for my $path (sources($root, 'h', 'core')) {
        for my $include (includes_of($root, $path)) {
            my ($line, undef, $name) = @$include;
            my $to = $name =~ m{^pdplane/} ? "core/include/$name" : "core/$name";
            push @{ $edges{$path} }, [$line, $to] if -e "$root/$to";
        }
    }
    my $visit;
    $visit = sub {
        my ($path, @trail) = @_;
        return if ($state{$path} // '') eq 'done';
        $state{$path} = 'open';
        for my $edge (@{ $edges{$path} // [] }) {
            my ($line, $to) = @$edge;
            if (($state{$to} // '') eq 'open') {
                push @bad, "$path:$line: circle " . join ' -> ', @trail, $path, $to;
            } else {
                $visit->($to, @trail, $path);
            }
        }
        $state{$path} = 'done';
    };
    $visit->($_) for sort keys %edges;
    return @bad;
}

sub public_includes {
    my ($root) = @_;
    my %system = map { $_ => 1 } qw(stddef.h stdint.h stdbool.h string.h sys/types.h);
    my @bad;
    for my $path (sources($root, 'h', 'core/include/pdplane')) {
        for my $include (includes_of($root, $path)) {
            my ($line, $kind, $name) = @$include;
            next if $kind eq '<' && ($system{$name} || $name =~ m{^pdplane/[a-z_]+\.h$});
            push @bad, "$path:$line: a public header must not include $name";
        }
    }
    return @bad;
}

# A module knows public headers, its own folder and modules/KIND/common.
sub module_includes {
    my ($root) = @_;
    my @bad;
    for my $path (sources($root, 'c|h', 'modules')) {
        my ($folder) = $path =~ m{^(.*)/};
        for my $include (includes_of($root, $path)) {
            my ($line, $kind, $name) = @$include;
            next if $kind eq '<' || $name eq 'config.h';
            my ($kind_folder) = $folder =~ m{^(modules/[^/]+)};
            push @bad, "$path:$line: \"$name\" is not in the module's own folder"
                if $name =~ /\.\./ || !(-e "$root/$folder/$name" || -e "$root/$kind_folder/common/$name");
        }
    }
    return @bad;
}

# What only some folders may use: name, pattern in code, allowed paths.
my @doors = (
    ['libuv',      qr/#\s*include\s*<uv\.h>|\buv_[a-z_]+\s*\(/,                    qr{^core/loop/}],
    ['libconfig',  qr/#\s*include\s*<libconfig\.h>|\bconfig_(?:setting_|read_|init|destroy|lookup)/,
        qr{^core/conf/tree\.c$}],
    ['OpenSSL',    qr/#\s*include\s*<openssl\/|\b(?:EVP|SSL|BIO|X509|RAND)_[A-Za-z0-9_]+\s*\(/, qr{^core/net/}],
    ['llhttp',     qr/#\s*include\s*<llhttp\.h>|\bllhttp_[a-z_]+\s*\(/,            qr{^core/net/}],
    ['xxHash',     qr/#\s*include\s*<xxhash\.h>|\bXXH[0-9]*_[A-Za-z0-9_]+\s*\(/,   qr{^core/base/}],
    ['dlopen',     qr/#\s*include\s*<dlfcn\.h>|(?<![\w.>])dl(?:m?open|v?sym|close)\s*\(/, qr{^core/os/}],
    ['the clock',  qr/(?<![\w.>])(?:clock_gettime|gettimeofday|clock_nanosleep|nanosleep|usleep|sleep|time|timerfd_create|clock)\s*\(/,
        qr{^core/loop/}],
    ['sockets',    qr/(?<![\w.>])(?:socket|socketpair|connect|bind|listen|accept4?|getaddrinfo|send(?:to|msg|mmsg)|recv(?:from|msg|mmsg)?)\s*\(/,
        qr{^core/loop/}],
    ['waiting',    qr/(?<![\w.>])(?:epoll_\w+|p?poll|p?select)\s*\(/,           qr{^core/(?:loop|os)/}],
    ['randomness', qr/(?<![\w.>])(?:getrandom|getentropy|s?random|s?rand|rand_r|[dln]rand48|arc4random\w*)\s*\(/,
        qr{^core/loop/}],
    ['threads',    qr/(?<![\w.>])(?:pthread_create|thrd_create)\s*\(/,             qr{^core/loop/}],
    ['processes',  qr/(?<![\w.>])(?:v?fork|exec[lv]p?e?|posix_spawnp?|kill|waitpid|system|popen|sigaction|signal)\s*\(/,
        qr{^core/(?:os|main)/}],
);
# Modules may use malloc; core has the fault switch in front of it.
my $malloc = ['malloc', qr/(?<![\w.>])(?:malloc|calloc|realloc|reallocarray|free|strdup|strndup|v?asprintf|aligned_alloc|posix_memalign)\s*\(/,
    qr{^core/base/mem\.c$}];

sub doors {
    my ($root) = @_;
    my @bad;
    for my $path (sources($root, 'c|h', 'core', 'modules')) {
        my $n = 0;
        my @rules = grep { $path !~ $_->[2] } @doors, $path =~ m{^core/} ? $malloc : ();
        for my $line (split /\n/, code_of(slurp("$root/$path"))) {
            $n++;
            for my $rule (@rules) {
                my ($name, $pattern) = @$rule;
                # A member of an ops table may have the name of a system call.
                next if $line =~ /\(\s*\*\s*\w+\s*\)\s*\(/;
                push @bad, "$path:$n: uses $name outside of its door" if $line =~ $pattern;
            }
        }
    }
    return @bad;
}

sub spdx {
    my ($root, @more) = @_;
    my @bad;
    my @files = sources($root, 'c|h|cc|am|ac|m4|t|pm|pl|mk|sh', 'core', 'modules', 'conf', 'contrib', 'doc', 't');
    for my $path (@files, grep { -e "$root/$_" } qw(configure.ac Makefile.am)) {
        next if $path =~ m{^contrib/(?:build-aux/|m4/(?:lib|lt))};
        my ($first, $second) = split /\n/, slurp("$root/$path"), 3;
        my $line = ($first // '') =~ /^#!/ ? $second : $first;
        push @bad, "$path:1: SPDX-License-Identifier is missing in the first line"
            unless ($line // '') =~ /SPDX-License-Identifier: Apache-2\.0\b/;
    }
    return @bad;
}

# Names that a shared object exports; undef when nm cannot tell.
sub exported_symbols {
    my ($file) = @_;
    my $text = `nm -D --defined-only '$file' 2>/dev/null`;
    return undef if $? != 0;
    return [grep { !/^__(?:odr_asan|asan|ubsan)/ } map { (split)[-1] } split /\n/, $text];
}

1;
