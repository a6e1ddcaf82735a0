# SPDX-License-Identifier: Apache-2.0
# Answers of TensorRT-LLM servers with context and generation apart, for
# PDPlane::FakeEngine: they take what such servers take and nothing else.
#
#   PDPlane::FakeTRTLLM::modes();         # "context", "generation", and ways to fail
#   PDPlane::FakeTRTLLM::kept();          # KV that nobody has fetched
#   PDPlane::FakeTRTLLM::crimes();        # what no server must get
#
# What context servers have handed out lies in a folder that all servers share, so that
# a generation server knows whether what it gets is genuine, to the byte.
package PDPlane::FakeTRTLLM;

use strict;
use warnings;

use JSON::PP ();

use PDPlane::FakeEngine;
use PDPlane::FakePD;
use PDPlane::Test qw(folder spew slurp);

my $json = JSON::PP->new->allow_bignum;

sub shared { my $dir = folder() . '/trt'; mkdir $dir; return $dir }

# Members that the servers know; all others are refused.
my @sampling = qw(model frequency_penalty logit_bias logprobs n presence_penalty seed stop stream stream_options temperature
    top_p user best_of use_beam_search top_k top_p_min min_p repetition_penalty length_penalty early_stopping stop_token_ids
    include_stop_str_in_output ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens
    lora_request prompt_ignore_length echo add_special_tokens response_format disaggregated_params);
my %known = (
    completions => { map { $_ => 1 } @sampling, qw(prompt max_tokens suffix return_context_logits detokenize) },
    chat => { map { $_ => 1 } @sampling, qw(messages prompt_token_ids max_tokens max_completion_tokens top_logprobs tools
        tool_choice reasoning_effort add_generation_prompt documents chat_template chat_template_kwargs mm_processor_kwargs) },
);
my @params = qw(request_type first_gen_tokens ctx_request_id encoded_opaque_state draft_tokens);
my @newer = qw(disagg_request_id ctx_dp_rank ctx_info_endpoint schedule_style);

my $crimes = 0;
sub crimes { return map { slurp($_) } sort glob shared() . '/crime-*' }
sub crime { my ($self, $what) = @_; spew(shared() . "/crime-$$-" . ++$crimes, $self->name . ": $what"); return $what }
sub kept { return scalar(my @all = grep { !/\.fetched$/ } glob shared() . '/kv-*') }

# age: "old" knows no disagg_request_id, "new" knows ctx_usage and a salt too.
sub fault {
    my ($self, $r, $target, $age) = @_;
    return 'no JSON' unless ref $r eq 'HASH';
    my $kind = $target =~ /chat/ ? 'chat' : 'completions';
    for my $key (sort keys %$r) {
        next if $known{$kind}{$key} || ($key eq 'cache_salt' && $kind eq 'chat' && $age eq 'new');
        return "Extra inputs are not permitted: $key";
    }
    return 'stream_options can only be set if stream is true' if defined $r->{stream_options} && !$r->{stream};
    my $prompt = $kind eq 'chat' ? $r->{messages} : $r->{prompt};
    return 'Field required' unless defined $prompt && defined $r->{model};
    my $p = $r->{disaggregated_params};
    return unless defined $p;
    my %fits = map { $_ => 1 } @params, $age eq 'old' ? () : @newer, $age eq 'new' ? 'ctx_usage' : ();
    for my $key (sort keys %$p) { return crime($self, "Extra inputs are not permitted: disaggregated_params.$key") unless $fits{$key} }
    return 'a context request is not streamed' if $p->{request_type} eq 'context_only' && $r->{stream};
    return;
}

sub text_of { my ($target, $text) = @_; return $target =~ /chat/ ? qq("message":{"role":"assistant","content":"$text","tool_calls":[]}) : qq("text":"$text") }

# A whole answer that is no part of anything.
sub whole {
    my ($send, $target, $text, $reason, $o) = @_;
    my $object = $target =~ /chat/ ? 'chat.completion' : 'text_completion';
    my $choice = $o->{choice} // text_of($target, $text);
    my $n = $o->{newline} // '';
    return $send->(PDPlane::FakePD::reply('200 OK', qq({"id":"x-1",$n"object":"$object","created":1700000000,"model":"m","choices":[{"index":0,$choice,"logprobs":null,)
        . qq("finish_reason":"$reason","stop_reason":null,$n"disaggregated_params":null}],"usage":{"prompt_tokens":57,"total_tokens":58,"completion_tokens":1,)
        . qq("prompt_tokens_details":{"cached_tokens":16}},$n"prompt_token_ids":null})));
}

my $served = 0;

# o: reason, with which it stops; params, choices: what stands there instead.
sub context {
    my ($request, $send, undef, $self, %o) = @_;
    my ($h, $body, $r, $target) = PDPlane::FakePD::parts($request);
    my $age = $o{age} // 'usual';
    my $fault = fault($self, $r, $target, $age);
    return $send->(PDPlane::FakePD::refusal('400 Bad Request', $fault)) if defined $fault;
    my $p = $r->{disaggregated_params};
    if (!defined $p) {
        return $send->(PDPlane::FakePD::refusal('500 Internal Server Error', crime($self, 'more than one token of a context server')))
            if (grep { $_ != 1 } grep { defined } @$r{qw(max_tokens max_completion_tokens)}) || !grep { defined } @$r{qw(max_tokens max_completion_tokens)};
        return whole($send, $target, 'one ' . $self->name, $o{reason} // 'length', \%o);
    }
    return $send->(PDPlane::FakePD::refusal('400 Bad Request', crime($self, "request_type $p->{request_type}"))) if $p->{request_type} ne 'context_only';
    return whole($send, $target, $o{text} // 'all by ' . $self->name, $o{reason}, \%o) if defined $o{reason} && $o{reason} ne 'not_finished';
    my ($id) = $body =~ /"disagg_request_id":(\d+)/;
    if (defined $id) {
        crime($self, "$id is no id that all servers share") if length $id < 13 || length $id > 19 || (length $id == 19 && $id gt '9223372036854775807')
            || (length $id == 13 && $id lt '1099511627776');
        crime($self, "$id was there before") if -e shared() . "/id-$id";
        spew(shared() . "/id-$id", '');
    } elsif ($age ne 'old') {
        crime($self, 'no disagg_request_id');
    }
    $id //= 2000 + ++$served + 100_000 * $$;
    # Members in the order of the one or the other version.
    my @first = ('"request_type":"context_only"', '"first_gen_tokens":[613]');
    my @params = ($self->name =~ /1/ ? reverse(@first) : @first, qq("ctx_request_id":$id, "encoded_opaque_state":"AAE\\/+w==" ,"draft_tokens":null),
        $age eq 'old' ? () : qq("disagg_request_id":$id,"ctx_dp_rank":9007199254740993), $age eq 'new' ? '"ctx_usage":null' : (),
        $age eq 'old' ? () : '"schedule_style":0');
    my @ids = $target =~ /chat/ ? (1, 881, 9) : (1, 882);
    my $usage = '{"prompt_tokens":57,"total_tokens":58, "completion_tokens":1,"prompt_tokens_details":{"cached_tokens":16}}';
    if (!exists $o{params}) {
        my $file = shared() . "/kv-$id";
        spew("$file.new", join "\n", $self->name, $usage, join(',', @ids), @params);
        rename "$file.new", $file or die $!;
    }
    my $choice = sprintf '{"index":0,%s,"logprobs":null,"finish_reason":"%s","stop_reason":null,"disaggregated_params":%s}',
        text_of($target, 'SECRET-FIRST'), $o{reason} // 'length', $o{params} // '{' . join(',', @params) . '}';
    my $choices = join ',', ($choice) x ($o{choices} // 1);
    return $send->(PDPlane::FakePD::reply('200 OK', qq({"id":"p-1","object":"x","created":1,"model":"m","choices":[$choices],"usage":$usage,"prompt_token_ids":[) . join(', ', @ids) . ']}'));
}

# The answer of a generation server: events, or one body.
sub give {
    my ($send, $r, $target, $source, $usage, %o) = @_;
    my $is_chat = $target =~ /chat/;
    if (!$r->{stream}) {
        my $text = text_of($target, $source);
        return $send->(PDPlane::FakePD::reply('200 OK', qq({ "id":"d-1","big":9007199254740993,"choices":[{"index":0,$text,"finish_reason":"stop"}],"usage":$usage })));
    }
    $send->($PDPlane::FakePD::sse_head);
    my $event = sub { return $send->(PDPlane::FakeEngine::chunk("data: $_[0]\n\n")) };
    for my $word ($source, 'two', 'three') {
        my $text = $is_chat ? qq("delta":{"content":"$word"}) : qq("text":"$word");
        $event->(qq({"id":"d-1","choices":[{"index":0,$text,"finish_reason":null}]})) or return 0;
        return 0 if $o{break};
        return PDPlane::FakePD::hang(@{ $o{hang} }) if $o{hang};
    }
    $event->(qq({"id":"d-1","choices":[],"usage":$usage})) if $r->{stream_options} && $r->{stream_options}{include_usage};
    $event->('[DONE]');
    return $send->("0\r\n\r\n");
}

sub generation {
    my ($request, $send, $c, $self, %o) = @_;
    my ($h, $body, $r, $target) = PDPlane::FakePD::parts($request);
    my $age = $o{age} // 'usual';
    my $fault = fault($self, $r, $target, $age);
    return $send->(PDPlane::FakePD::refusal('400 Bad Request', $fault)) if defined $fault;
    my $usage = '{"prompt_tokens":57,"completion_tokens":3,"total_tokens":60%s}';
    return give($send, $r, $target, 'local', sprintf($usage, ''), %o) unless defined $r->{disaggregated_params};
    my $refuse = sub { return $send->(PDPlane::FakePD::refusal('500 Internal Server Error', crime($self, $_[0]))) };
    my ($params) = $body =~ /"disaggregated_params":(\{(?:[^{}"]|"(?:[^"\\]|\\.)*"|(?1))*\})/ or return $refuse->('no params');
    my ($id) = $params =~ /"ctx_request_id":(\d+)/ or return $refuse->('no ctx_request_id');
    my $file = shared() . "/kv-$id";
    return $refuse->("no context server knows $id") unless -e $file;
    my ($by, $its_usage, $ids, @params) = split /\n/, slurp($file);
    my @ours = ('"request_type":"generation_only"', $age eq 'new' ? "\"ctx_usage\":$its_usage" : ());
    my $want = '{' . join(',', @ours, grep { !/^"(?:request_type|ctx_usage)"/ } @params) . '}';
    return $refuse->("params are not $want but $params") if $want ne $params;
    my $tokens = $target =~ /chat/ ? $r->{prompt_token_ids} : $r->{prompt};
    return $refuse->('other tokens than the context server had') if ref $tokens ne 'ARRAY' || join(',', @$tokens) ne $ids;
    rename $file, "$file.fetched" or return $refuse->("the KV of $id was fetched before");
    return $o{instead}->($send) if $o{instead};
    my $cached = $age eq 'new' ? $r->{disaggregated_params}{ctx_usage}{prompt_tokens_details}{cached_tokens} : 57;
    return give($send, $r, $target, "remote $by", sprintf($usage, qq(,"prompt_tokens_details":{"cached_tokens":$cached})), %o);
}

sub modes {
    PDPlane::FakePD::vllm();   # the ways to fail
    my $call = '"message":{"role":"assistant","content":null,"tool_calls":[{"id":"t0","type":"function"},{"id":"t1","function":{"name":"f","arguments":"{}"}}]}';
    my %a = (
        context => \&context,
        context_old => sub { context(@_, age => 'old') },
        context_new => sub { context(@_, age => 'new') },
        context_unfinished => sub { context(@_, reason => 'not_finished') },
        context_stop => sub { context(@_, reason => 'stop') },
        context_lines => sub { context(@_, reason => 'stop', newline => "\r\n ", text => 'a\\nb\\u00e9') },
        context_calls => sub { context(@_, reason => 'tool_calls', choice => $call) },
        context_null => sub { context(@_, params => 'null') },
        context_empty => sub { context(@_, params => '{"request_type":"context_only","ctx_request_id":null,"first_gen_tokens":null}') },
        context_text => sub { context(@_, params => '"AAAA"') },
        context_two => sub { context(@_, params => '{}', choices => 2) },
        context_no_choice => sub { context(@_, params => '{}', choices => 0) },
        context_twice => sub { context(@_, params => '{"ctx_request_id":1,"ctx_request_id":2}') },
        context_again => sub { context(@_, params => '{"ctx_request_id":1,' . join(',', map { qq("x$_":0,"request_type":"a") } 1 .. 9) . '}') },
        generation => \&generation,
        generation_old => sub { generation(@_, age => 'old') },
        generation_new => sub { generation(@_, age => 'new') },
        # Has the request, and cannot fetch the KV.
        generation_nokv => sub { generation(@_, instead => sub { $_[0]->(PDPlane::FakePD::refusal('500 Internal Server Error', 'KV transfer failed')) }) },
        generation_break => sub { generation(@_, break => 1) },
        generation_hang => sub { generation(@_, hang => [@_]) },
    );
    @PDPlane::FakeEngine::answers{ keys %a } = values %a;
    return;
}

1;
