# SPDX-License-Identifier: Apache-2.0
package PDBench::Run;

# Programs of a measurement: started in a folder of their own, ended with it.
use strict;
use warnings;

use Exporter qw(import);
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Time::HiRes qw(sleep);

our @EXPORT_OK = qw(begin start free_ports wait_port spew load module_path);

my ($build, $dir, @prefix, @started);

# Where the programs are, where files go, and what is put before pdbench.
sub begin {
    ($build, $dir, @prefix) = @_;
    for my $p ('pdplane', 'pdbench') {
        -x "$build/$p" or die "there is no $build/$p: run make first, or give --build DIR\n";
    }
    $SIG{INT} = $SIG{TERM} = sub { exit 1 };
    return;
}
END {
    my $rc = $?;
    kill TERM => $_ for @started;
    waitpid $_, 0 for @started;
    $? = $rc;
}

sub spew {
    my ($name, $text) = @_;
    open my $f, '>', "$dir/$name" or die "$dir/$name: $!\n";
    print $f $text;
    close $f or die "$dir/$name: $!\n";
    return "$dir/$name";
}

sub start {
    my ($name, @command) = @_;
    my $pid = fork // die "fork: $!\n";
    if ($pid == 0) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$dir/$name.out";
        open STDERR, '>', "$dir/$name.err";
        exec { $command[0] } @command or POSIX::_exit(127);
    }
    push @started, $pid;
    return $pid;
}

# Ports that follow each other and that nobody has.
sub free_ports {
    my ($n) = @_;
    TRY: for (1 .. 200) {
        my $port = 12000 + int rand 18000;
        for my $p ($port .. $port + $n - 1) {
            my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $p, Listen => 1) or next TRY;
        }
        return $port .. $port + $n - 1;
    }
    die "no free ports\n";
}

sub wait_port {
    my ($port, $name) = @_;
    for (1 .. 400) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
        return if $s;
        sleep 0.025;
    }
    die "$name does not listen; see $dir/$name.err\n";
}

# The result of pdbench load on a port; every request must be answered.
sub load {
    my ($port, @more) = @_;
    open my $f, '-|', @prefix, "$build/pdbench", 'load', '-u', "http://127.0.0.1:$port", '--json', '-q', @more
        or die "pdbench: $!\n";
    local $/;
    my $r = decode_json(<$f> || '{}');
    close $f;
    die "a load on port $port failed: " . encode_json($r->{errors} // {}) . "\n" if !$r->{ok} || $r->{failed};
    return $r;
}

# The line of a configuration that finds the modules of a build folder.
sub module_path {
    my %seen;
    my @so = grep { !$seen{$_}++ } glob "$build/modules/{*,*/*,*/*/*}/.libs/*.so";
    return '' unless @so;
    mkdir "$dir/modules";
    my $at = $build =~ m{^/} ? '' : POSIX::getcwd() . '/';
    symlink "$at$_", "$dir/modules/" . (m{([^/]+)$})[0] for @so;
    return qq(module_path = [ "$dir/modules" ];\n);
}

1;
