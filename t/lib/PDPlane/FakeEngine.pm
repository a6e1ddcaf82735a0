# SPDX-License-Identifier: Apache-2.0
# A scripted server with the OpenAI API.  Each connection is served by a process
# of its own, which looks at the mode of the moment:
#
#   my $e = PDPlane::FakeEngine->new('a', models => ['m']);
#                                       # list_delay: seconds before the models are told
#   $e->mode('break');      # what it does with requests from now on
#   $e->requests;           # raw texts of the requests it got, probes left out
#   $e->stop;
#
# Answers are made by the code in %answers: it gets the raw request and a function
# that sends bytes; returning false cuts the connection.
package PDPlane::FakeEngine;

use strict;
use warnings;

use IO::Socket::INET;
use POSIX ();
use Socket qw(SOL_SOCKET SO_LINGER);
use Time::HiRes qw(sleep);

use PDPlane::Test qw(folder spew slurp);

my @running;

our %answers;

sub plain {
    my ($status, $type, $body, %headers) = @_;
    my $h = join '', map { "$_: $headers{$_}\r\n" } sort keys %headers;
    return "HTTP/1.1 $status\r\ncontent-type: $type\r\ncontent-length: " . length($body) . "\r\n$h\r\n$body";
}

sub chunk { return sprintf "%x\r\n%s\r\n", length $_[0], $_[0] }

sub new {
    my ($class, $name, %o) = @_;
    my $listen = IO::Socket::INET->new(LocalAddr => $o{host} // '127.0.0.1', LocalPort => $o{port} // 0, Listen => 64,
        ReuseAddr => 1) or die "fake engine: $!";
    my $self = bless { name => $name, port => $listen->sockport, dir => folder() . "/engine-$name",
        models => $o{models} // ['m'], list_delay => $o{list_delay} // 0 }, $class;
    mkdir $self->{dir};
    $self->mode($o{mode} // 'ok');
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        setpgrp;   # so that stop reaches those that serve kept connections too
        $SIG{CHLD} = 'IGNORE';
        $SIG{$_} = 'DEFAULT' for qw(TERM INT);
        my $n = 0;
        while (1) {
            my $c = $listen->accept or next;
            $n++;
            next if fork;
            close $listen;
            eval { $self->serve($c, $n) };
            POSIX::_exit(0);
        }
    }
    close $listen;
    $self->{pid} = $pid;
    push @running, $self;
    return $self;
}

sub port { return $_[0]{port} }
sub name { return $_[0]{name} }

sub mode {
    my ($self, $mode) = @_;
    spew("$self->{dir}/mode.new", $mode);
    rename "$self->{dir}/mode.new", "$self->{dir}/mode" or die $!;
    return $self;
}

# What it says of itself at /server_info, or "cut"; undef: there is nothing.
sub info {
    my ($self, $info) = @_;
    unlink "$self->{dir}/info";
    spew("$self->{dir}/info", $info) if defined $info;
    return $self;
}

sub requests {
    my ($self) = @_;
    return map { slurp($_) } sort glob "$self->{dir}/request-*";
}

sub forget { my ($self) = @_; unlink glob "$self->{dir}/request-*"; return $self }

sub stop {
    my ($self) = @_;
    return unless defined $self->{pid};
    kill KILL => -$self->{pid}, $self->{pid};
    waitpid $self->{pid}, 0;
    delete $self->{pid};
    return;
}

sub serve {
    my ($self, $c, $n) = @_;
    my $in = '';
    $SIG{PIPE} = 'IGNORE';
    $SIG{ALRM} = 'DEFAULT';
    for (my $k = 0; ; $k++) {
        my $end;
        alarm 60;
        while (($end = index $in, "\r\n\r\n") < 0) { sysread($c, $in, 1 << 16, length $in) or return }
        $end += 4;
        my ($length) = substr($in, 0, $end) =~ /^content-length: *(\d+)/mi;
        $end += $length // 0;
        while (length $in < $end) { sysread($c, $in, 1 << 16, length $in) or return }
        my $request = substr $in, 0, $end;
        $in = substr $in, $end;
        my $mode = slurp("$self->{dir}/mode");
        ($mode) = $request =~ /"model": *"([^"]*)"/ if $mode eq 'by_model' && $request !~ /^GET/;
        my $send = sub { my $t = shift; my $at = 0; while ($at < length $t) { $at += syswrite($c, $t, length($t) - $at, $at) // return 0 } return 1 };
        if ($request =~ m{^GET /health }) {
            return if $mode eq 'dead';
            $send->(plain($mode eq 'unhealthy' ? '503 Service Unavailable' : '200 OK', 'text/plain', ''));
            next;
        }
        if ($request =~ m{^GET /v1/models }) {
            return if $mode eq 'dead';
            if ($mode eq 'unhealthy') { $send->(plain('503 Service Unavailable', 'text/plain', "no\n")); next }
            sleep $self->{list_delay} if $self->{list_delay} > 0;
            my $list = join ',', map { qq({"id":"$_","object":"model","owned_by":"x","created":1}) } @{ $self->{models} };
            $send->(plain('200 OK', 'application/json', qq({"object":"list","data":[$list]})));
            next;
        }
        if ($request =~ m{^GET /\w*server_info }) {
            my $info = -e "$self->{dir}/info" ? slurp("$self->{dir}/info") : undef;
            return if defined $info && $info eq 'cut';
            $send->(defined $info ? plain('200 OK', 'application/json', $info) : plain('404 Not Found', 'text/plain', "no\n"));
            next;
        }
        spew(sprintf("%s/request-%06d-%03d", $self->{dir}, $n, $k), $request);
        my $code = $answers{$mode} // die "no mode $mode";
        $code->($request, $send, $c, $self) or return;
    }
}

# Ends the connection with a reset instead of a FIN.
sub reset_connection {
    my ($c) = @_;
    setsockopt $c, SOL_SOCKET, SO_LINGER, pack 'll', 1, 0;
    close $c;
    return 0;
}

END { my $status = $?; $_->stop for @running; $? = $status }

1;
