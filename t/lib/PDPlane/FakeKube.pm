# SPDX-License-Identifier: Apache-2.0
# An API server of Kubernetes, as far as discovery needs one: lists in pages, and
# watches with bookmarks.  Its state stands in files of a folder, so that other
# processes can change it:
#
#   my $k = PDPlane::FakeKube->new($dir);            # a process of its own
#   PDPlane::FakeKube::set($dir, [1, 2, 3]);         # endpoints 127.0.0.1 ... at port 8000
#   PDPlane::FakeKube::mode($dir, 'lose');           # answers 503, watches are cut
#   PDPlane::FakeKube::forget($dir);                 # versions before now are too old (410)
#   $k->requests;                                    # targets of the requests
#
# Modes: ok, lose, cut (watches are cut, then it goes on), expire (a watch ends by
# an ERROR of 410), refuse (401), forbid (403), garbage (events that are none).
package PDPlane::FakeKube;

use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Time::HiRes qw(sleep time);

use PDPlane::Test qw(slurp);

my $json = JSON::PP->new->canonical;
my @running;

# Written here, because this is also used by programs without a test's folder.
sub put_file {
    my ($path, $text) = @_;
    open my $out, '>', "$path.new" or die "$path: $!";
    print $out $text;
    close $out or die "$path: $!";
    rename "$path.new", $path or die "$path: $!";
    return;
}

sub get_file { my ($path) = @_; return -e $path ? slurp($path) : '' }

sub mode { my ($dir, $mode) = @_; put_file("$dir/mode", $mode); return }

sub state_of { my ($dir) = @_; my $text = get_file("$dir/state"); return $text eq '' ? { version => 100, oldest => 0, items => {}, events => [] } : $json->decode($text) }

# Replaces the objects by these (name => object); what differs becomes an event.
sub objects {
    my ($dir, $items) = @_;
    my $s = state_of($dir);
    for my $name (sort keys %{ { %$items, %{ $s->{items} } } }) {
        my ($old, $new) = ($s->{items}{$name}, $items->{$name});
        my $plain = defined $old ? $json->decode($json->encode($old)) : undef;
        delete $plain->{metadata}{resourceVersion} if $plain;
        next if defined $new && defined $plain && $json->encode($new) eq $json->encode($plain);
        my $type = !defined $new ? 'DELETED' : defined $old ? 'MODIFIED' : 'ADDED';
        my $object = $json->decode($json->encode($new // $old));
        $object->{metadata}{resourceVersion} = '' . ++$s->{version};
        push @{ $s->{events} }, { type => $type, object => $object };
        if (defined $new) { $s->{items}{$name} = $object } else { delete $s->{items}{$name} }
    }
    put_file("$dir/state", $json->encode($s));
    return;
}

sub forget {
    my ($dir) = @_;
    my $s = state_of($dir);
    $s->{version} += 10;
    $s->{oldest} = $s->{version};
    $s->{events} = [];
    put_file("$dir/state", $json->encode($s));
    return;
}

sub slice {
    my ($name, $numbers, %o) = @_;
    return { metadata => { name => $name, uid => "slice-$name", labels => $o{labels} // {} }, addressType => 'IPv4',
        ports => [ { name => 'metrics', port => 9000, protocol => 'TCP' }, { name => 'http', port => $o{port} // 8000, protocol => 'TCP' } ],
        endpoints => [ map { { addresses => [ /^\d+$/ ? "127.0.0.$_" : $_ ], conditions => { ready => JSON::PP::true },
            targetRef => { kind => 'Pod', name => "pod-$_", uid => "uid-$_" } } } @$numbers ] };
}

# Odd and even numbers in a slice each; twice: all in a third one as well.
sub set {
    my ($dir, $numbers, %o) = @_;
    my @odd = grep { /\D/ || $_ % 2 } @$numbers;
    my @even = grep { !/\D/ && $_ % 2 == 0 } @$numbers;
    objects($dir, { (@odd ? (odd => slice('odd', \@odd, %o)) : ()), (@even ? (even => slice('even', \@even, %o)) : ()),
        ($o{twice} ? (twice => slice('twice', $numbers, %o)) : ()) });
    return;
}

sub new {
    my ($class, $dir, %o) = @_;
    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64, ReuseAddr => 1) or die "fake kube: $!";
    my $self = bless { dir => $dir, port => $listen->sockport }, $class;
    mkdir $dir;
    put_file("$dir/token", "sesame\n");
    mode($dir, 'ok');
    objects($dir, {});
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        setpgrp;
        $SIG{CHLD} = 'IGNORE';
        $SIG{$_} = 'DEFAULT' for qw(TERM INT);
        while (1) {
            my $c = $listen->accept or next;
            next if fork;
            close $listen;
            eval { serve($dir, $c, $o{page} // 1) };
            POSIX::_exit(0);
        }
    }
    close $listen;
    $self->{pid} = $pid;
    push @running, $self;
    return $self;
}

sub port { return $_[0]{port} }
sub requests { return split /\n/, get_file("$_[0]{dir}/requests") }
sub forget_requests { unlink "$_[0]{dir}/requests"; return }

sub stop {
    my ($self) = @_;
    return unless defined $self->{pid};
    kill KILL => -$self->{pid}, $self->{pid};
    waitpid delete $self->{pid}, 0;
    return;
}

sub send_all { my ($c, $t) = @_; my $at = 0; while ($at < length $t) { $at += syswrite($c, $t, length($t) - $at, $at) // die 'gone' } return }
sub chunk { return sprintf("%x\r\n", length $_[0]) . $_[0] . "\r\n" }

sub answer {
    my ($c, $status, $data) = @_;
    my $body = $json->encode($data);
    send_all($c, "HTTP/1.1 $status\r\ncontent-type: application/json\r\ncontent-length: " . length($body) . "\r\n\r\n$body");
    return;
}

sub status_object { my ($code) = @_; return { kind => 'Status', status => 'Failure', code => $code } }

sub list {
    my ($dir, $c, $q, $page) = @_;
    my $s = state_of($dir);
    my @names = sort keys %{ $s->{items} };
    my $from = $q->{continue} // 0;
    return answer($c, '410 Gone', status_object(410)) if $from && $q->{continue} =~ /old/;
    my $to = $from + $page - 1;
    my $more = $to < $#names;
    $to = $#names if !$more;
    answer($c, '200 OK', { kind => 'List', metadata => { resourceVersion => "$s->{version}", $more ? (continue => '' . ($to + 1)) : () },
        items => [ map { $s->{items}{$_} } @names[$from .. $to] ] });
    return;
}

sub watch {
    my ($dir, $c, $q) = @_;
    my $at = $q->{resourceVersion};
    return answer($c, '410 Gone', status_object(410)) if $at < state_of($dir)->{oldest} && get_file("$dir/mode") ne 'expire';
    send_all($c, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
    my $bookmark = time + 0.3;
    while (1) {
        my $mode = get_file("$dir/mode");
        die 'cut' if $mode eq 'lose' || $mode eq 'cut';
        my $s = state_of($dir);
        if ($mode eq 'expire' || $at < $s->{oldest}) {
            send_all($c, chunk($json->encode({ type => 'ERROR', object => status_object(410) }) . "\n") . "0\r\n\r\n");
            return;
        }
        send_all($c, chunk("{\"type\": nonsense}\n")) if $mode eq 'garbage';
        for my $e (@{ $s->{events} }) {
            my $line = $json->encode($e) . "\n";
            next if $e->{object}{metadata}{resourceVersion} <= $at;
            # Lines do not come as they were sent.
            my $cut = int rand length $line;
            send_all($c, chunk(substr $line, 0, $cut)) if $cut;
            sleep 0.002;
            send_all($c, chunk(substr $line, $cut));
            $at = $e->{object}{metadata}{resourceVersion};
        }
        if (time > $bookmark) {
            send_all($c, chunk($json->encode({ type => 'BOOKMARK', object => { metadata => { resourceVersion => "$at" } } }) . "\n"));
            $bookmark = time + 0.3;
        }
        sleep 0.01;
    }
}

sub serve {
    my ($dir, $c, $page) = @_;
    $SIG{PIPE} = 'IGNORE';
    alarm 120;
    my $in = '';
    while (1) {
        sysread $c, $in, 65536, length $in or return until $in =~ /\r\n\r\n/;
        $in =~ s/^(.*?\r\n\r\n)//s;
        my $head = $1;
        my ($target) = $head =~ m{^GET (\S+) };
        open my $log, '>>', "$dir/requests" or die;
        syswrite $log, "$target\n";
        close $log;
        my %q = map { my ($k, $v) = split /=/, $_, 2; $v //= ''; $v =~ s/%(..)/chr hex $1/ge; $k => $v } split /&/, ($target =~ /\?(.*)/)[0] // '';
        my $mode = get_file("$dir/mode");
        my $token = get_file("$dir/token") =~ s/\s//gr;
        if ($head !~ /^authorization: Bearer \Q$token\E\r$/mi || $mode eq 'refuse') { answer($c, '401 Unauthorized', status_object(401)) }
        elsif ($mode eq 'forbid') { answer($c, '403 Forbidden', status_object(403)) }
        elsif ($mode eq 'lose') { answer($c, '503 Service Unavailable', status_object(503)) }
        elsif ($q{watch}) { watch($dir, $c, \%q); return if get_file("$dir/mode") eq 'cut' }
        else { list($dir, $c, \%q, $page) }
    }
}

END { my $status = $?; $_->stop for @running; $? = $status }

1;
