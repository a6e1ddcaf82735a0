# SPDX-License-Identifier: Apache-2.0
# Answers of SGLang servers that compute prompts and answers apart, for
# PDPlane::FakeEngine: they keep to the protocol of such servers and take nothing else.
#
#   PDPlane::FakeSGLang::modes();             # "prefill", "decode", and ways to fail
#   PDPlane::FakeSGLang::bootstrap($e, $host, $port);   # where $e is met
#   PDPlane::FakeSGLang::left($e);            # markers of requests that were broken off
#   PDPlane::FakeSGLang::ended();             # of those that prefill servers ended
#
# Both legs of a request come with the same bytes.  The prefill server waits for the
# decode server in the room that both are told, and pushes; the decode server waits for
# the push before it answers.  Rooms are files in a folder that all servers share.
package PDPlane::FakeSGLang;

use strict;
use warnings;

use IO::Select;
use JSON::PP ();
use Time::HiRes qw(sleep time);

use PDPlane::FakeEngine;
use PDPlane::FakePD;
use PDPlane::Test qw(folder spew slurp);

my $json = JSON::PP->new->allow_bignum;
my $patience = 45;     # seconds that a server waits for the other one

sub shared { my $dir = folder() . '/rooms'; mkdir $dir; return $dir }

# A file that is there as a whole or not at all.
sub put {
    my ($name, $text) = @_;
    my $file = shared() . "/$name";
    spew("$file.$$.new", $text);
    rename "$file.$$.new", $file or die $!;
    return;
}

sub bootstrap {
    my ($engine, $host, $port) = @_;
    put("at-$host:$port", $engine->name);
    put("of-" . $engine->name, "$host:$port");
    return $engine;
}

# What went wrong in a way that a real server does not survive, or that it does not notice.
sub crimes { return map { slurp($_) } sort glob shared() . '/crime-*' }
my $crimes = 0;
sub crime { my ($self, $what) = @_; put("crime-$$-" . ++$crimes, $self->name . ": $what"); return }

my $left = 0;
my $marker = '';       # of the request at hand
# True, and counted, when the other side has gone.
sub gone {
    my ($c, $self) = @_;
    return 0 unless IO::Select->new($c)->can_read(0);
    my $n = sysread $c, my $rest, 1 << 16;
    return 0 if $n;
    spew("$self->{dir}/left-$$-" . ++$left, $marker);
    return 1;
}

# Markers of the requests whose connections ended while this server was at work.
sub left { my ($engine) = @_; return map { slurp($_) } glob "$engine->{dir}/left-*" }

# Those of requests that a prefill server has answered to the end.
sub ended { return map { slurp($_) } glob shared() . '/ended-*' }

# What tells requests apart: a test may hear late of one that is over.
sub marker_of { my ($text) = @_; return $text =~ /"x_marker":"(\d+)"/ ? $1 : '' }

# Waits until the condition holds.  Undef: the other side has gone, 0: it takes too long.
sub wait_for {
    my ($c, $self, $condition) = @_;
    my $end = time + $patience;
    while (time < $end) {
        return 1 if $condition->();
        return if gone($c, $self);
        sleep 0.003;
    }
    return 0;
}

# The members that say where to meet: host, port and rooms; or what is wrong with them.
sub meeting {
    my ($r, $body) = @_;
    return (undef, 'no JSON') unless ref $r eq 'HASH';
    for my $key (qw(bootstrap_host bootstrap_port bootstrap_room)) {
        return (undef, "Disaggregated request received without bootstrap room id: no $key") unless exists $r->{$key};
        my @times = $body =~ /"$key" *:/g;
        return (undef, "$key stands there twice") if @times > 1;
    }
    my ($host, $port, $room) = @$r{qw(bootstrap_host bootstrap_port bootstrap_room)};
    my $prompt = $r->{prompt};
    my $is_batch = ($r->{n} // 1) > 1 || (ref $prompt eq 'ARRAY' && (ref $prompt->[0] || $prompt->[0] !~ /^\d+$/));
    my $count = ($r->{n} // 1) * (ref $prompt eq 'ARRAY' && $is_batch && !(@$prompt && $prompt->[0] =~ /^\d+$/) ? scalar @$prompt : 1);
    if ($is_batch) {
        return (undef, 'a batch without lists') if grep { ref $_ ne 'ARRAY' } $host, $port, $room;
        return (undef, "lists of another length than $count") if grep { @$_ != $count } $host, $port, $room;
        return (undef, 'several places to meet') if grep { "$_" ne "$host->[0]" } @$host or grep { "$_" ne "$port->[0]" } @$port;
    } else {
        return (undef, 'lists for one sequence') if grep { ref $_ eq 'ARRAY' } $host, $port, $room;
        ($host, $port, $room) = ([$host], [$port], [$room]);
    }
    my ($texts) = $body =~ /"bootstrap_room":(\d+|\[[\d,]+\])/ or return (undef, 'bootstrap_room is no integer');
    my @rooms = $texts =~ /(\d+)/g;
    my %seen;
    for my $t (@rooms) {
        return (undef, "room $t is not below 2^63") if length $t > 19 || (length $t == 19 && $t gt '9223372036854775807');
        return (undef, "room $t is used twice") if $seen{$t}++;
    }
    return (undef, 'bootstrap_port is no integer') unless $body =~ /"bootstrap_port":\[?\d+[,\]\}]/;
    return ({ at => "$host->[0]:$port->[0]", rooms => \@rooms, texts => $texts }, '');
}

sub event { return PDPlane::FakeEngine::chunk("data: $_[0]\n\n") }
sub error_event { return event(qq({"error":{"object":"error","message":"$_[0]","type":"InternalServerError","param":null,"code":500}})) . event('[DONE]') . "0\r\n\r\n" }
sub head_sent { my ($send, $r) = @_; return !$r->{stream} || $send->($PDPlane::FakePD::sse_head) }

# Says no: with a status, or in the stream when that has begun.
sub refuse {
    my ($send, $r, $status, $why) = @_;
    return $send->(PDPlane::FakePD::refusal($status, $why)) unless ref $r eq 'HASH' && $r->{stream};
    return $send->($PDPlane::FakePD::sse_head . error_event($why));
}

sub prefill {
    my ($request, $send, $c, $self, %o) = @_;
    my ($h, $body, $r) = PDPlane::FakePD::parts($request);
    my ($m, $fault) = meeting($r, $body);
    $marker = marker_of($body);
    my ($own) = slurp(shared() . '/of-' . $self->name);
    if (!$m) {
        crime($self, $fault) if $fault =~ /without bootstrap room/;
        return $send->(PDPlane::FakePD::refusal('400 Bad Request', $fault));
    }
    $fault = "to be met at $own, not at $m->{at}" if $own ne $m->{at};
    for my $room (@{ $m->{rooms} }) {
        $fault = "room $room was there before" if -e shared() . "/room-$room.prompt";
        put("room-$room.prompt", $self->name . "\n$h->{'x-request-id'}\n$body");
    }
    crime($self, $fault) if $fault ne '';
    return refuse($send, $r, '500 Internal Server Error', $fault) if $fault ne '';
    return 0 if $o{met} && !wait_for($c, $self, sub { -e shared() . "/room-$m->{rooms}[0].met" });
    return $o{instead}->($send, $r) if $o{instead};
    head_sent($send, $r) or return 0;
    if ($o{stall}) {
        wait_for($c, $self, sub { 0 });
        return 0;
    }
    for my $room (@{ $m->{rooms} }) {
        my $is_there = wait_for($c, $self, sub { -e shared() . "/room-$room.met" });
        return 0 unless defined $is_there;
        return 0 unless $is_there;
        put("room-$room.kv", '');
        return 0 if $o{half};
    }
    if ($o{hold}) {
        my $let = wait_for($c, $self, sub { -e shared() . '/let-go' });
        return 0 if !$let || gone($c, $self);
    }
    put("ended-$m->{rooms}[0]", $marker);
    return $o{after}->($send, $r) if $o{after};
    return $send->(PDPlane::FakePD::reply('200 OK', '{"id":"p","choices":[{"index":0,"text":"SECRET-FIRST","message":{"content":"SECRET-FIRST"}}]}'))
        unless $r->{stream};
    return $send->(event('{"id":"p","choices":[{"index":0,"text":"SECRET-FIRST","delta":{"content":"SECRET-FIRST"}}]}')
        . event('[DONE]') . "0\r\n\r\n");
}

# The text of the answer says who computed the prompt.
sub decode {
    my ($request, $send, $c, $self, %o) = @_;
    my ($h, $body, $r, $target) = PDPlane::FakePD::parts($request);
    my ($m, $fault) = meeting($r, $body);
    $marker = marker_of($body);
    return $send->(PDPlane::FakePD::refusal('400 Bad Request', $fault)) unless $m;
    my $by = -e shared() . "/at-$m->{at}" ? slurp(shared() . "/at-$m->{at}") : undef;
    crime($self, "nobody is met at $m->{at}") unless defined $by;
    return 0 if $o{met} && !wait_for($c, $self, sub { -e shared() . "/room-$m->{rooms}[0].prompt" });
    return $o{instead}->($send, $r) if $o{instead};
    head_sent($send, $r) or return 0;
    for my $room (@{ $m->{rooms} }) {
        put("room-$room.met", $self->name);
        my $is_there = wait_for($c, $self, sub { -e shared() . "/room-$room.kv" });
        return 0 unless defined $is_there;
        if (!$is_there) {
            crime($self, "room $room stays empty");
            return $send->($r->{stream} ? error_event('no KV') : PDPlane::FakePD::refusal('500 Internal Server Error', 'no KV'));
        }
        my ($name, $id, $prompt) = split /\n/, slurp(shared() . "/room-$room.prompt"), 3;
        crime($self, 'the prefill server got another request') if $prompt ne $body || $id ne $h->{'x-request-id'} || $name ne $by;
        last if $o{first_only};
    }
    if ($o{stall}) {
        wait_for($c, $self, sub { 0 });
        return 0;
    }
    return $o{after}->($send, $r) if $o{after};
    my $is_chat = $target =~ /chat/;
    my $n = @{ $m->{rooms} };
    if (!$r->{stream}) {
        my $choices = join ',', map { $is_chat ? qq({"index":$_,"message":{"role":"assistant","content":"remote $by"},"finish_reason":"stop"})
            : qq({"index":$_,"text":"remote $by","finish_reason":"stop"}) } 0 .. $n - 1;
        return $send->(PDPlane::FakePD::reply('200 OK', qq({ "id":"d-1","big":9007199254740993,"choices":[$choices],"usage":{"prompt_tokens":57,"completion_tokens":3} })));
    }
    for my $word ("remote $by", 'two', 'three') {
        for my $i (0 .. $n - 1) {
            # Those of other prompts follow when these are there.
            if ($o{first_only} && $word =~ /^remote/ && $i > 0) {
                put("room-$m->{rooms}[$i].met", $self->name);
                wait_for($c, $self, sub { -e shared() . "/room-$m->{rooms}[$i].kv" }) or return 0;
            }
            my $text = $is_chat ? qq("delta":{"content":"$word"}) : qq("text":"$word");
            $send->(event(qq({"id":"d-1","choices":[{"index":$i,$text,"finish_reason":null}]}))) or return 0;
        }
        return 0 if $o{break};
        if ($o{hang}) { wait_for($c, $self, sub { 0 }); return 0 }
    }
    return $send->(event('[DONE]') . "0\r\n\r\n");
}

sub modes {
    my $failure = sub { my ($status, $why) = @_; return sub { my ($send, $r) = @_; return $send->(PDPlane::FakePD::refusal($status, $why)) } };
    my $in_stream = sub { my ($send, $r) = @_; return refuse($send, $r, '500 Internal Server Error', 'KV transfer failed') };
    my %a = (
        prefill => \&prefill,
        prefill_stall => sub { prefill(@_, stall => 1) },
        # The KV is pushed, the answer comes later.
        prefill_hold => sub { prefill(@_, hold => 1) },
        # The first prompt's only, then nothing more.
        prefill_half => sub { prefill(@_, half => 1) },
        # Once both have the request.
        prefill_400 => sub { prefill(@_, met => 1, instead => $failure->('400 Bad Request', 'too long a prompt')) },
        prefill_event => sub { prefill(@_, instead => $in_stream) },
        prefill_short => sub { prefill(@_, instead => sub { $_[0]->($PDPlane::FakePD::sse_head . "0\r\n\r\n") }) },
        decode => \&decode,
        decode_stall => sub { decode(@_, stall => 1) },
        decode_first => sub { decode(@_, first_only => 1) },
        decode_400 => sub { decode(@_, met => 1, instead => $failure->('400 Bad Request', 'no such thing')) },
        decode_event => sub { decode(@_, instead => $in_stream) },
        decode_short => sub { decode(@_, instead => sub { $_[0]->($PDPlane::FakePD::sse_head . "0\r\n\r\n") }) },
        decode_late_event => sub { decode(@_, after => sub { my ($send, $r) = @_; $send->($r->{stream} ? error_event('KV transfer failed') : PDPlane::FakePD::refusal('500 Internal Server Error', 'KV transfer failed')) }) },
        decode_break => sub { decode(@_, break => 1) },
        decode_hang => sub { decode(@_, hang => 1) },
        (map { my $status = $_; ($status =~ /^(\d+)/, sub { $_[1]->(PDPlane::FakePD::refusal($status, 'boom')) }) }
            '500 Internal Server Error', '503 Service Unavailable', '429 Too Many Requests', '408 Request Timeout'),
        302 => sub { $_[1]->(PDPlane::FakePD::reply('302 Found', '{}')) },
        cut => sub { 0 },
        reset => sub { PDPlane::FakeEngine::reset_connection($_[2]) },
        # Takes aggregated requests: a server without a disaggregation mode.
        whole => sub {
            my ($request, $send, undef, $self) = @_;
            my (undef, $body, $r, $target) = PDPlane::FakePD::parts($request);
            crime($self, 'a room for a server that is no part of a pair') if $body =~ /bootstrap_/;
            return PDPlane::FakePD::tell_source($send, $body, $r, $target, 'whole');
        },
    );
    @PDPlane::FakeEngine::answers{ keys %a } = values %a;
    return;
}

1;
