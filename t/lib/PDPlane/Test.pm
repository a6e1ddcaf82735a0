# SPDX-License-Identifier: Apache-2.0
# What the tests share: a private folder, files, running the program.
#
# Environment: PD_BUILDDIR and PD_SRCDIR (set by make check, default: here),
# PD_BINARY (the pdplane to test, default: the one in PD_BUILDDIR), PD_KEEP=1
# (keep the folder).
package PDPlane::Test;

use strict;
use warnings;

use Cwd qw(abs_path getcwd);
use Exporter 'import';
use File::Copy qw(copy);
use File::Path qw(make_path);
use File::Spec;
use File::Temp qw(tempdir);
use Test::More;

our @EXPORT = qw(builddir srcdir folder spew slurp run_program pdplane check_text
    module_dirs test_module_dir module_folder sources);

# What failed stands in the log of the test, beside its result.
Test::More->builder->failure_output(Test::More->builder->output);

my $folder;

sub builddir { return abs_path($ENV{PD_BUILDDIR} // getcwd()) }
sub srcdir   { return abs_path($ENV{PD_SRCDIR} // $ENV{PD_BUILDDIR} // getcwd()) }

# A folder of this test alone, removed at its end.
sub folder {
    $folder //= tempdir('pdplane-t-XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{PD_KEEP});
    return $folder;
}

# spew(NAME, TEXT [, MODE]): writes a file, relative to the folder; its path.
sub spew {
    my ($name, $text, $mode) = @_;
    my $path = File::Spec->file_name_is_absolute($name) ? $name : folder() . "/$name";
    my (undef, $dir) = File::Spec->splitpath($path);
    make_path($dir) unless -d $dir;
    open my $out, '>:raw', $path or die "$path: $!";
    print {$out} $text;
    close $out or die "$path: $!";
    chmod $mode, $path or die "$path: $!" if defined $mode;
    return $path;
}

sub slurp {
    my ($path) = @_;
    open my $in, '<:raw', $path or die "$path: $!";
    local $/;
    my $text = <$in>;
    return $text // '';
}

# run_program(COMMAND...): exit status (or "signal N"), standard output, error.
sub run_program {
    my @command = @_;
    my ($out, $err) = (folder() . "/.stdout", folder() . "/.stderr");
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        open STDIN,  '<', '/dev/null' or die;
        open STDOUT, '>', $out        or die;
        open STDERR, '>', $err        or die;
        exec { $command[0] } @command or exit 127;
    }
    waitpid $pid, 0;
    my $status = $? & 127 ? 'signal ' . ($? & 127) : $? >> 8;
    return ($status, slurp($out), slurp($err));
}

sub pdplane {
    my @arguments = @_;
    my $binary = $ENV{PD_BINARY} // builddir() . '/pdplane';
    my ($rc, $out, $err) = run_program($binary, @arguments);
    BAIL_OUT("$binary cannot be run") if $rc eq 127;
    diag($err) if $err =~ /Sanitizer|runtime error:/;
    return ($rc, $out, $err);
}

# check_text(CONFIGURATION): what pdplane -t says about it.  The folder's name is
# cut from the messages, so that tests can compare them as they stand.
sub check_text {
    my ($text) = @_;
    my $path = spew('pd.conf', $text);
    my ($rc, $out, $err) = pdplane('-t', '-c', $path);
    my $dir = quotemeta folder();
    s/$dir\///g for $out, $err;
    return ($rc, $out, $err);
}

# Where the modules of this build are, for module_path.
sub module_dirs {
    my $b = builddir();
    return grep { -d } glob "$b/modules/*/*/.libs $b/modules/*/*/*/.libs";
}
sub test_module_dir { return builddir() . '/t/modules/.libs' }

# All modules of this build, and those of the folders named, in one folder as
# after make install, which nobody else can write; its path.
sub module_folder {
    my (@more) = @_;
    my $to = folder() . '/modules';
    -d $to or mkdir $to, 0755 or die "$to: $!";
    chmod 0755, $to;
    for my $file (map { glob "$_/*.so" } module_dirs(), @more) {
        my ($name) = $file =~ m{([^/]+)$};
        copy($file, "$to/$name") or die "$file: $!";
        chmod 0755, "$to/$name";
    }
    return $to;
}

# Files of the source tree below some folders, by ending, relative, sorted.
sub sources {
    my ($root, $endings, @dirs) = @_;
    my @found;
    my @todo = grep { -d "$root/$_" } @dirs;
    while (defined(my $dir = shift @todo)) {
        opendir my $d, "$root/$dir" or die "$root/$dir: $!";
        for my $name (sort readdir $d) {
            next if $name =~ /^\./;
            my $path = "$dir/$name";
            if    (-d "$root/$path")             { push @todo,  $path }
            elsif ($name =~ /\.(?:$endings)$/)   { push @found, $path }
        }
    }
    return sort @found;
}

1;
