# SPDX-License-Identifier: Apache-2.0
# A small HTTP/1.1 client and a scripted server for tests, with core Perl only.
#
#   my $r = get(PORT, '/health');            # { status, headers, body, raw }
#   my $r = post(PORT, '/v1/completions', { model => 'tiny', ... });
#   my @r = parallel(PORT, [ PATH, BODY ], ...);   # all at the same time
#   my $s = open_stream(PORT, PATH, BODY);   # ->head, ->event, ->close
#   my @events = events($r->{body});         # data lines of an event stream
#
# Bodies may be text or a structure, which is sent as JSON.  Failures give a
# hash without status and with error.
package PDPlane::Http;

use strict;
use warnings;

use Exporter 'import';
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use Time::HiRes qw(time);

our @EXPORT_OK = qw(get post request parallel open_stream events json_of choices_of);

my $json = JSON::PP->new->utf8->canonical;

sub json_of { return $json->decode($_[0]) }

sub body_text {
    my ($body) = @_;
    return ref $body ? $json->encode($body) : $body // '';
}

sub request_text {
    my ($method, $path, $body, %o) = @_;
    my %h = (host => '127.0.0.1', connection => 'close', %{ $o{headers} // {} });
    my $text = body_text($body);
    if ($method eq 'POST') {
        $h{'content-type'} //= 'application/json';
        $h{'content-length'} //= length $text;
    }
    return "$method $path HTTP/1.1\r\n" . join('', map { "$_: $h{$_}\r\n" } sort keys %h) . "\r\n$text";
}

sub connect_to {
    my ($port) = @_;
    return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Proto => 'tcp', Timeout => 5);
}

sub send_all {
    my ($s, $text) = @_;
    local $SIG{PIPE} = 'IGNORE';
    my $at = 0;
    while ($at < length $text) {
        my $n = syswrite $s, $text, length($text) - $at, $at;
        return 0 unless defined $n;
        $at += $n;
    }
    return 1;
}

# Undoes chunked coding; complete is false without the last chunk.
sub unchunk {
    my ($raw) = @_;
    my ($out, $complete) = ('', 0);
    while ($raw =~ s/^([0-9a-fA-F]+)[^\r\n]*\r\n//) {
        my $n = hex $1;
        if ($n == 0) { $complete = $raw =~ /^\r\n/; last }
        last if length $raw < $n + 2;
        $out .= substr $raw, 0, $n;
        $raw = substr $raw, $n + 2;
    }
    return ($out, $complete);
}

sub parse {
    my ($raw) = @_;
    return { error => 'no answer', raw => $raw } unless $raw =~ m{^HTTP/1\.[01] (\d{3})[^\r\n]*\r\n(.*?\r\n)\r\n}s;
    my %r = (status => $1, raw => $raw, complete => 1);
    my $head = $2;
    my $body = substr $raw, $+[0];
    return parse($body) if $r{status} < 200;
    for my $line (split /\r\n/, $head) {
        my ($k, $v) = $line =~ /^([^:]+):\s*(.*?)\s*$/ or next;
        $r{headers}{lc $k} = $v;
    }
    if (($r{headers}{'transfer-encoding'} // '') eq 'chunked') {
        @r{qw(body complete)} = unchunk($body);
    } else {
        my $n = $r{headers}{'content-length'};
        $r{complete} = length $body >= $n if defined $n;
        $r{body} = defined $n ? substr $body, 0, $n : $body;
    }
    return \%r;
}

# All at the same time; each is [PATH, BODY, options]; answers in that order.
sub parallel {
    my ($port, @asks) = @_;
    my %o = ref $asks[-1] eq 'HASH' ? %{ pop @asks } : ();
    my $select = IO::Select->new;
    my (%raw, %index, @out);
    my $end = time + ($o{timeout} // 180);
    for my $i (0 .. $#asks) {
        my ($path, $body, %ask) = @{ $asks[$i] };
        my $s = connect_to($port);
        if (!defined $s || !send_all($s, request_text($ask{method} // 'POST', $path, $body, %ask))) {
            $out[$i] = { error => "cannot connect: $!" };
            next;
        }
        $raw{$s} = '';
        $index{$s} = $i;
        $select->add($s);
    }
    while ($select->count > 0 && time < $end) {
        for my $s ($select->can_read($end - time)) {
            my $n = sysread $s, $raw{$s}, 1 << 16, length $raw{$s};
            next if $n;
            $out[ $index{$s} ] = parse($raw{$s});
            $select->remove($s);
            close $s;
        }
    }
    for my $s ($select->handles) {
        $out[ $index{$s} ] = { error => 'timeout', raw => $raw{$s} };
        close $s;
    }
    return @out;
}

sub request {
    my ($port, $method, $path, $body, %o) = @_;
    my ($r) = parallel($port, [ $path, $body, method => $method, %o ], { timeout => $o{timeout} // 120 });
    return $r;
}

sub get  { my ($port, $path, %o) = @_;        return request($port, 'GET', $path, undef, %o) }
sub post { my ($port, $path, $body, %o) = @_; return request($port, 'POST', $path, $body, %o) }

sub events {
    my ($body) = @_;
    return map { /^data: ?(.*)$/m ? $1 : () } split /\r?\n\r?\n/, $body;
}

# The bytes of "choices" of an answer: what two answers must have in common.
sub choices_of {
    my ($r) = @_;
    return 'no answer: ' . ($r->{error} // $r->{body} // '') unless ($r->{status} // 0) == 200;
    return $r->{body} =~ /"choices":(\[.*\])(?:,"usage":|\}$)/s ? $1 : $r->{body};
}

# ---- streams ----------------------------------------------------------------

sub open_stream {
    my ($port, $path, $body, %o) = @_;
    my $s = connect_to($port) or return;
    send_all($s, request_text('POST', $path, $body, %o)) or return;
    return bless { socket => $s, raw => '', text => '' }, 'PDPlane::Http::Stream';
}

package PDPlane::Http::Stream;

use strict;
use warnings;
use Time::HiRes qw(time);

sub fill {
    my ($self, $seconds) = @_;
    return 0 if $self->{eof};
    return 0 unless IO::Select->new($self->{socket})->can_read($seconds);
    my $n = sysread $self->{socket}, $self->{raw}, 1 << 16, length $self->{raw};
    $self->{eof} = 1 unless $n;
    return $n;
}

# Status and headers.
sub head {
    my ($self, $seconds) = @_;
    return $self->{head} if defined $self->{head};
    my $end = time + ($seconds // 20);
    until ($self->{raw} =~ /\r\n\r\n/ || time > $end) { $self->fill($end - time) or last }
    $self->{head} //= PDPlane::Http::parse($self->{raw} =~ s/^(.*?\r\n\r\n)//s ? $1 : '');
    return $self->{head};
}

# Data of the next event, undef at the end.
sub event {
    my ($self, $seconds) = @_;
    my $end = time + ($seconds // 20);
    $self->head($seconds);
    while (1) {
        while ($self->{raw} =~ /^([0-9a-fA-F]+)\r\n/) {
            my ($n, $at) = (hex $1, $+[0]);
            last if length $self->{raw} < $at + $n + 2;
            $self->{done} = 1 if $n == 0;
            $self->{text} .= substr $self->{raw}, $at, $n;
            $self->{raw} = substr $self->{raw}, $at + $n + 2;
        }
        while ($self->{text} =~ s/^(.*?)\r?\n\r?\n//s) {
            my $event = $1;
            return $1 if $event =~ /^data: ?(.*)/m;
        }
        return if $self->{done} || time > $end;
        $self->fill($end - time) or return;
    }
}

sub rest {
    my ($self, $seconds) = @_;
    my (@out, $e);
    push @out, $e while defined($e = $self->event($seconds));
    return @out;
}

sub is_complete { return $_[0]{done} }
sub close       { CORE::close $_[0]{socket}; return }

1;
