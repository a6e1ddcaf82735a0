# SPDX-License-Identifier: Apache-2.0
# Answers of servers that compute prompts and answers apart, for PDPlane::FakeEngine:
# they take what the protocol says and nothing else.
#
#   PDPlane::FakePD::vllm();        # modes "prefill" and "decode", and ways to fail
#
# What the prefill servers of a test have handed out lies in a folder that all its
# servers share, so that a decode server knows whether what it gets is genuine.
package PDPlane::FakePD;

use strict;
use warnings;

use JSON::PP ();
use Time::HiRes qw(sleep);

use PDPlane::FakeEngine;
use PDPlane::Test qw(folder spew slurp);

my $json = JSON::PP->new->allow_bignum;

sub shared { my $dir = folder() . '/pd'; mkdir $dir; return $dir }
sub chunk { return PDPlane::FakeEngine::chunk(@_) }

our $sse_head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

# status => text of an answer as JSON
sub reply {
    my ($status, $body) = @_;
    return PDPlane::FakeEngine::plain($status, 'application/json', $body);
}

sub refusal {
    my ($status, $why) = @_;
    return reply($status, sprintf '{"error":{"message":"%s","type":"BadRequestError","param":null,"code":%d}}', $why, $status =~ /(\d+)/);
}

# Headers, body as text, body read.
sub parts {
    my ($request) = @_;
    my ($head, $body) = split /\r\n\r\n/, $request, 2;
    my %h = map { /^([^:]+): *(.*?)\r?$/ ? (lc $1 => $2) : () } split /\n/, $head;
    return (\%h, $body, eval { $json->decode($body) }, $head =~ m{^POST (\S+) });
}

# The raw text of the kv_transfer_params in a body.
sub params_of {
    my ($body) = @_;
    return $body =~ /"kv_transfer_params" *: *(\{(?:[^{}"]|"(?:[^"\\]|\\.)*"|(?1))*\})/ ? $1 : undef;
}

# ---- vLLM, NixlConnector, pull mode

# Why a prefill leg is not one, or nothing.
sub vllm_prefill_fault {
    my ($h, $body, $r) = @_;
    return 'no JSON' unless ref $r eq 'HASH';
    return 'no request id' unless ($h->{'x-request-id'} // '') =~ /\S/;
    my $kv = $r->{kv_transfer_params};
    return 'no kv_transfer_params' unless ref $kv eq 'HASH';
    return 'not the six members' unless join(' ', sort keys %$kv) eq
        'do_remote_decode do_remote_prefill remote_block_ids remote_engine_id remote_host remote_port';
    return 'wrong direction' if !$kv->{do_remote_decode} || $kv->{do_remote_prefill};
    return 'a null is missing' if grep { defined $kv->{$_} } grep { /^remote_/ } keys %$kv;
    return 'prefill does not support streaming' unless exists $r->{stream} && !$r->{stream};
    return 'stream_options without stream' if exists $r->{stream_options};
    return 'min_tokens above max_tokens' if exists $r->{min_tokens} || exists $r->{min_completion_tokens};
    return 'more than one token' if ($r->{max_tokens} // 0) != 1 || ($r->{max_completion_tokens} // 1) != 1;
    return;
}

my $served = 0;

sub vllm_prefill {
    my ($request, $send, undef, $self, %o) = @_;
    my ($h, $body, $r, $target) = parts($request);
    my $fault = vllm_prefill_fault($h, $body, $r);
    return $send->(refusal('400 Bad Request', $fault)) if defined $fault;
    my $id = sprintf '%s-%d-%d', $self->name, $$, ++$served;
    my $params = sprintf '{"do_remote_prefill":true, "do_remote_decode":false,"remote_block_ids":[[31,9223372036854775807],[18446744073709551615]],'
        . '"remote_engine_id":"%s","remote_request_id":"%s","remote_host":"127.0.0.1","remote_port":5600,"tp_size":1,'
        . '"unknown":{"b":[1,{"a":1.10}],"f":1e400,"s":"\u00e9 \\"}"}, "transfer_mode":"pull"}', $self->name, $id;
    spew(shared() . "/$id.new", "$h->{'x-request-id'}\n$params");
    rename shared() . "/$id.new", shared() . "/$id" or die $!;
    my $kv = ($o{without} // '') eq 'member' ? '' : sprintf ',"kv_transfer_params":%s', ($o{without} // '') eq 'value' ? 'null' : $params;
    my $text = $target =~ /chat/ ? '"message":{"role":"assistant","content":"SECRET-FIRST"}' : '"text":"SECRET-FIRST"';
    return $send->(reply('200 OK', sprintf '{"id":"p-1","choices":[{"index":0,%s,"finish_reason":"length"}],'
        . '"usage":{"prompt_tokens":57,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":16}}%s}', $text, $kv));
}

# What a decode server says of where the prompt was computed, undef when it cannot be.
sub vllm_source {
    my ($h, $body) = @_;
    my $params = params_of($body);
    return $body =~ /"kv_transfer_params"/ ? undef : 'local' unless defined $params;
    my ($id) = $params =~ /"remote_request_id":"([^"]+)"/ or return;
    my $file = shared() . "/$id";
    return unless -e $file;
    my ($request_id, $text) = split /\n/, slurp($file), 2;
    return if $text ne $params || $request_id ne ($h->{'x-request-id'} // '');
    rename $file, "$file.pulled" or return;
    return "remote $1" if $id =~ /^(\w+)-/;
    return;
}

# Events, or one body, that tell the source.
sub tell_source {
    my ($send, $body, $r, $target, $source) = @_;
    my $is_chat = $target =~ /chat/;
    if (!$r->{stream}) {
        my $text = $is_chat ? qq("message":{"role":"assistant","content":"$source"}) : qq("text":"$source");
        return $send->(reply('200 OK', qq({ "id":"d-1","big":9007199254740993,"choices":[{"index":0,$text,"finish_reason":"stop"}],"usage":{"prompt_tokens":57,"completion_tokens":3} })));
    }
    $send->($sse_head);
    for my $word ($source, 'two', 'three') {
        my $text = $is_chat ? qq("delta":{"content":"$word"}) : qq("text":"$word");
        $send->(chunk(qq(data: {"id":"d-1","choices":[{"index":0,$text,"finish_reason":null}]}\n\n)));
    }
    return $send->(chunk("data: [DONE]\n\n") . "0\r\n\r\n");
}

sub vllm_decode {
    my ($request, $send) = @_;
    my ($h, $body, $r, $target) = parts($request);
    my $source = vllm_source($h, $body);
    return $send->(refusal('500 Internal Server Error', 'KV load failed')) unless defined $source;
    return tell_source($send, $body, $r, $target, $source);
}

# Says nothing until the other side goes; `left` counts those who went.
sub hang {
    my (undef, undef, $c, $self) = @_;
    1 while sysread $c, my $rest, 1 << 16;
    spew("$self->{dir}/left-$$-" . ++$served, '');
    return 0;
}

sub left { my ($self) = @_; return scalar(my @all = glob "$self->{dir}/left-*") }

sub vllm {
    my %a = (
        prefill => \&vllm_prefill,
        prefill_null => sub { vllm_prefill(@_, without => 'value') },
        prefill_none => sub { vllm_prefill(@_, without => 'member') },
        prefill_400 => sub { $_[1]->(refusal('400 Bad Request', 'too long a prompt')) },
        prefill_garbage => sub { $_[1]->(reply('200 OK', '{"kv_transfer_params":{"a":')) },
        prefill_twice => sub { $_[1]->(reply('200 OK', '{"kv_transfer_params":{},"kv_transfer_params":{}}')) },
        prefill_long => sub { $_[1]->(reply('200 OK', '{"x":"' . 'y' x 200_000 . '"}')) },
        prefill_redirect => sub { $_[1]->(reply('302 Found', '{}')) },
        decode => \&vllm_decode,
        # Cannot fetch KV from anybody.
        decode_nokv => sub {
            my ($h, $body, $r, $target) = parts($_[0]);
            return $_[1]->(refusal('500 Internal Server Error', 'KV load failed')) if $body =~ /kv_transfer_params/;
            return tell_source($_[1], $body, $r, $target, 'local');
        },
        decode_break => sub {
            my ($h, $body) = parts($_[0]);
            my $source = vllm_source($h, $body) // 'none';
            $_[1]->($sse_head . chunk(qq(data: {"choices":[{"index":0,"delta":{"content":"$source"}}]}\n\n)));
            return 0;
        },
        decode_hang => sub {
            my ($h, $body) = parts($_[0]);
            my $source = vllm_source($h, $body) // 'none';
            $_[1]->($sse_head . chunk(qq(data: {"choices":[{"index":0,"delta":{"content":"$source"}}]}\n\n)));
            return hang(@_);
        },
        500 => sub { $_[1]->(refusal('500 Internal Server Error', 'boom')) },
        503 => sub { $_[1]->(refusal('503 Service Unavailable', 'busy')) },
        429 => sub { $_[1]->(refusal('429 Too Many Requests', 'busy')) },
        cut => sub { 0 },
        half => sub { $_[1]->("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"kv_transfer_params\":{"); 0 },
        reset => sub { PDPlane::FakeEngine::reset_connection($_[2]) },
        hang => \&hang,
    );
    # Modes that only fail are those of both roles.
    @PDPlane::FakeEngine::answers{ keys %a } = values %a;
    return;
}

1;
