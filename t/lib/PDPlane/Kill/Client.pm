# SPDX-License-Identifier: Apache-2.0
# A client in a process of its own, which can be killed and stopped like any
# other.  It says what it gets as it comes, and can pause on the way:
#   S0 connected   S1 half of the head sent   S2 half of the body sent
#   S12 the first answer is complete, the connection idle; then it asks again
#
#   my $c = PDPlane::Kill::Client->start(PORT, BODY, pause => 'S1');
#   $c->wait_paused(SECONDS); $c->go;
#   $c->wait_for(SECONDS, sub { $_[0]->is_over });
#   $c->answer      # of the last request: PDPlane::Http::parse, with `eof`
package PDPlane::Kill::Client;

use strict;
use warnings;

use IO::Handle;
use IO::Select;
use JSON::PP ();
use POSIX ();
use Socket qw(AF_UNIX PF_UNSPEC SOCK_STREAM);
use Time::HiRes qw(sleep time);

use PDPlane::Http;

sub start {
    my ($class, $port, $body, %o) = @_;
    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die "socketpair: $!";
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        close $ours;
        $theirs->autoflush(1);
        $SIG{PIPE} = 'IGNORE';
        $SIG{TERM} = $SIG{QUIT} = 'DEFAULT';
        my $text = ref $body ? JSON::PP->new->canonical->encode($body) : $body;
        eval { talk($theirs, $port, $text, $o{pause} // ''); 1 } or print {$theirs} "over $@\n";
        POSIX::_exit(0);
    }
    close $theirs;
    return bless { pid => $pid, pipe => $ours, in => '', raw => '', requests => 0, at => [] }, $class;
}

# ---- the process

sub pause_at {
    my ($parent, $point) = @_;
    print {$parent} "paused $point\n";
    defined readline $parent or POSIX::_exit(1);
    return;
}

sub talk {
    my ($parent, $port, $body, $pause) = @_;
    my $point = sub { pause_at($parent, $_[0]) if $pause eq $_[0] };
    my $s = dial($port);
    $point->('S0');
    my $rounds = $pause eq 'S12' ? 2 : 1;
    for my $round (1 .. $rounds) {
        my $head = "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            . 'content-length: ' . length($body) . "\r\n" . ($round == $rounds ? "connection: close\r\n" : '') . "\r\n";
        print {$parent} "request\n";
        my @parts = $round == 1 ? (substr($head, 0, 40), substr($head, 40) . substr($body, 0, 40), substr $body, 40)
            : ($head . $body);
        for my $i (0 .. $#parts) {
            put($s, $parts[$i]);
            $point->("S$_") for grep { $round == 1 && $_ <= 2 } $i + 1;
        }
        my ($got, $why) = take($parent, $s);
        if ($round == 2 && !$got) {
            # An idle connection may end at any time; then one asks again.
            $s = dial($port);
            put($s, $head . $body);
            ($got, $why) = take($parent, $s);
        }
        $point->('S12') if $round == 1;
        print {$parent} "over $why\n" if $round == $rounds;
    }
    return;
}

sub dial {
    my ($port) = @_;
    my $end = time + 10;
    while (1) {
        my $s = PDPlane::Http::connect_to($port);
        return $s if defined $s;
        die "cannot connect\n" if time > $end;
        sleep 0.05;
    }
}

sub put {
    my ($s, $text) = @_;
    PDPlane::Http::send_all($s, $text);
    return;
}

# Reads one answer: bytes, and how it ended.
sub take {
    my ($parent, $s) = @_;
    my $raw = '';
    while (1) {
        my $n = sysread $s, my $bytes, 1 << 16;
        return (length $raw, defined $n ? 'eof' : 'reset') unless $n;
        $raw .= $bytes;
        print {$parent} "bytes $n\n", $bytes;
        my $r = PDPlane::Http::parse($raw);
        return (length $raw, 'complete') if defined $r->{status} && $r->{complete}
            && (($r->{headers}{'transfer-encoding'} // '') eq 'chunked' || defined $r->{headers}{'content-length'});
    }
}

# ---- the test's side

sub pid { return $_[0]{pid} }

# Takes what the process says until CODE is true; its value.
sub wait_for {
    my ($self, $seconds, $code) = @_;
    my $end = time + $seconds;
    my $value;
    until ($value = $code->($self)) {
        my $left = $end - time;
        last if $left <= 0;
        next unless IO::Select->new($self->{pipe})->can_read($left);
        my $n = sysread $self->{pipe}, $self->{in}, 1 << 16, length $self->{in};
        $self->{over} //= 'gone' unless $n;
        $self->words;
        return $code->($self) if !$n;
    }
    return $value;
}

sub words {
    my ($self) = @_;
    while ($self->{in} =~ /^(\w+) ?([^\n]*)\n/) {
        my ($what, $more, $at) = ($1, $2, $+[0]);
        if ($what eq 'bytes') {
            last if length $self->{in} < $at + $more;
            $self->{raw} .= substr $self->{in}, $at, $more;
            push @{ $self->{at} }, time;
            $at += $more;
        } elsif ($what eq 'request') {
            @$self{qw(raw requests)} = ('', $self->{requests} + 1);
        } else {
            $self->{$what} = $more;
        }
        substr $self->{in}, 0, $at, '';
    }
    return;
}

sub is_over     { return defined $_[0]{over} }
sub wait_paused { my ($self, $seconds) = @_; return $self->wait_for($seconds, sub { $_[0]{paused} || $_[0]{over} }) && $self->{paused} }
sub go          { my ($self) = @_; delete $self->{paused}; syswrite $self->{pipe}, "go\n"; return }

# Events that have come so far.
sub events { my ($self) = @_; my $r = $self->answer; return PDPlane::Http::events($r->{body} // '') }
sub answer { my ($self) = @_; return PDPlane::Http::parse($self->{raw}) }

sub signal { my ($self, $signal) = @_; kill $signal, $self->{pid} if defined $self->{pid}; return }

sub end {
    my ($self) = @_;
    return unless defined $self->{pid};
    kill 'KILL', $self->{pid};
    waitpid $self->{pid}, 0;
    delete $self->{pid};
    $self->wait_for(1, sub { $_[0]{over} });
    close $self->{pipe};
    return;
}

1;
