# SPDX-License-Identifier: Apache-2.0
# Writes the seed corpora: perl t/fuzz/seeds.pl FOLDER.  What fuzzing found is
# added to the corpora by hand, under names that say what it was.
use strict;
use warnings;

use File::Path qw(make_path);

my $root = shift // 't/fuzz/corpus';

sub seed {
    my ($target, $name, $bytes) = @_;
    make_path("$root/$target");
    open my $out, '>:raw', "$root/$target/$name" or die "$root/$target/$name: $!";
    print {$out} $bytes;
    close $out or die $!;
}
sub s16 { return pack 'v/a*', $_[0] }
sub s32 { return pack 'V/a*', $_[0] }

# conf
seed 'conf', 'empty', '';
seed 'conf', 'node', <<'EOT';
# a node
node = { name = "n1"; };
listen = ( { address = "0.0.0.0:8000"; api = "openai"; }, { address = "[::]:7000"; api = "peer"; advertise = "h:1"; } );
peers = ( { address = "10.0.0.2:7000"; } );
log = { level = "debug"; format = "json"; };
kv = { digests = "always"; lease = "30s"; inflight = "64m"; };
limits = { connections = 1000; };
EOT
seed 'conf', 'syntax', "a = [ 1, 0x2, 3L ]; b : { c = true; d = \"\\x41\\n\" \"two\"; };\n/* x */ // y\n\@include \"z\"\ne = (1, (2.5e3, { }));";
seed 'conf', 'secret', "link = { secret = \"\${HOST}\"; heartbeat = \"1s\"; };\n";

# ctl
seed 'ctl', 'all', "status\nnodes --json\nendpoints\nrequests 5\nexplain r1\ntransfers\nleases --json\nmodules\nlog\nlog debug\nlog info peer\nhelp\nhelp status\nhelp --json\n";
seed 'ctl', 'end', "drain\nstop\nstatus --json\n";
seed 'ctl', 'odd', "\t help  nothing\nstatu\n--json\nrequests 99999999999999999999\na b c d e f g h i j\n";

# http1: flags, seed of the cuts, bytes
my %request = (
    get => "GET /v1/models?x=%20 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    post => "POST /v1/completions HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n",
    chunked => "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;a=\"b\\\"c\";d\r\nwiki\r\nA\r\n0123456789\r\n0\r\nX-T: v\r\n\r\n",
    smuggle => "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    path => "GET /%2e%2e/a/./b%00 HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    options => "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\n\r\n",
);
my %response = (
    ok => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No Content\r\n\r\n",
    events => "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n0\r\n\r\n",
    close => "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    continue => "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    upgrade => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
);
seed 'http1', "request-$_", "\x00\x07$request{$_}" for keys %request;
seed 'http1', "response-$_", "\x01\x07$response{$_}" for keys %response;
seed 'http1', 'small', "\x04\x01$request{chunked}";
seed 'http1', 'head', "\x03\x01HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";

# json
my $chat = '{"model":"tiny","stream":true,"stream_options":{"include_usage":true},"n":2,"user":"u","seed":-7,'
    . '"temperature":0.25,"top_p":1e-1,"max_tokens":5,"stop":["a","\u00e9\ud83d\ude00"],"logprobs":true,"top_logprobs":2,'
    . '"messages":[{"role":"system","content":"S\n"},{"role":"user","content":[{"type":"text","text":"\u0041"}]}]}';
my $completion = '{"model":"m","prompt":["one",[1,2,3]],"echo":true,"logprobs":3,"max_tokens":1,"stop":"x",'
    . '"frequency_penalty":-1,"presence_penalty":0.5,"prompt_cache_key":"k","cache_salt":"s","best_of":1}';
seed 'json', 'chat', $chat;
seed 'json', 'completion', $completion;
seed 'json', 'numbers', '[0,-0,1.5,-1E+10,123456789012345678901234567890,1e308,1e-400,9223372036854775807,18446744073709551615]';
seed 'json', 'strings', '["\"\\\\\/\b\f\n\r\t\u0000\u20ac","' . "\xc3\xa9\xf0\x9f\x98\x80" . '"]';
seed 'json', 'nested', ('[' x 40) . '{"a":{"b":null}}' . (']' x 40);
seed 'json', 'model', '{ "user" : "x" , "model" : false , "n" : 1 }';

# request: kind, body
seed 'request', 'chat', "\x01$chat";
seed 'request', 'completion', "\x00$completion";
seed 'request', 'tools', "\x01" . '{"model":"m","messages":[{"role":"tool","content":null}],"tools":[{}],"response_format":{"type":"json_object"}}';
seed 'request', 'tokens', "\x00" . '{"model":"m","prompt":[1,2,3]}';
seed 'request', 'models', "\x02" . '{"object":"list","data":[{"id":"a"},{"id":"b\u0042","object":"model"}]}';

# sse: seed of the cuts, stream
seed 'sse', 'stream', "\x05data: {\"a\":1}\n\nevent: e\ndata: x\ndata: y\nid: 7\n\n: ping\n\ndata: [DONE]\n\n";
seed 'sse', 'ends', "\x03\xef\xbb\xbfdata:a\r\n\r\ndata\r\rdata: \n\nretry: 5\n\nid: \x00\n\n";

# text: stops, seed, bytes
seed 'text', 'stops', "\x03" . pack('(C/a*)*', 'stop', "\n\n", 'st') . "\x05Some text \xe2\x82\xac sto st\n and sstop then";
seed 'text', 'utf8', "\x00\x09a\xf0\x9f\x98\x80\xc3\x28\xe2\x82";
seed 'text', 'long', "\x01" . pack('C/a*', 'aab') . "\x01aaaaaaab";

# message: which, bytes
my $sampling = pack 'Vd<d<d<d<d<Q<VV', 40, 0.8, 0.9, 0, 0, 0, 7, 2, 1;
my $node = ("\x11" x 16) . pack 'Q<', 5;
my $leg = "\x01\x01" . s16('req-1') . pack('VV', 0, 0) . s16('model') . s16('tiny') . s16('') . $sampling
    . pack('VVQ<C', 16, 0, 1000, 3) . pack('Q<', 32) . s16('why') . "\x01" . s16('stop')
    . "\x01" . $node . s16('p') . s16('10.0.0.2:7000') . s16('tiny')
    . pack('V', 1) . s16('user') . s32('Hello') . s32('') . pack('V', 0) . pack('VVV', 2, 5, 6);
seed 'message', 'leg', "\x00$leg";
my $layout = pack('VVVVVVQ<', 1, 1, 2, 2, 8, 16, 2 * 2 * 2 * 8 * 4 * 16) . ("\x22" x 16);
my $grant = pack('CCQ<Q<', 1, 1, 9, 3) . $node . pack('VVVVQ<Q<C', 0, 32, 16, 5000, 32 * 256, 77, 1) . $layout
    . "\x01" . s16('tcp') . s16('blob');
my $order = "\x01" . s16('req-1') . s16('tiny') . s16('') . pack('VVVCVQ<', 0, 3, 0, 1, 0, 1000) . $sampling
    . pack('VVVV', 3, 1, 2, 3) . s32($grant);
seed 'message', 'order', "\x01$order";
seed 'message', 'started', "\x02" . pack('VVC', 9, 0, 1) . s16('because') . s16('p');
seed 'message', 'handover', "\x03" . pack('VVQ<Q<Q<VV', 1, 2, 3, 4, 5, 6, 7) . s16('tcp') . s16('p') . s16('');
seed 'message', 'token', "\x04" . pack('VV', 5, 0) . s32('a') . s16('a') . pack('Cf<C', 1, -0.5, 1) . pack('Vf<', 6, -1) . s16('b');
seed 'message', 'end', "\x05" . pack('CVVV', 1, 9, 0, 3) . s32('t') . pack('vCCVC', 0, 6, 0, 0, 0) . s16('') . s16('');
seed 'message', 'failed', "\x05" . pack('CVVV', 5, 9, 0, 3) . s32('') . pack('vCCVC', 503, 6, 7, 100, 0) . s16('') . s16('bad');

# kv: which, bytes
seed 'kv', 'grant', "\x00$grant";
seed 'kv', 'renew', "\x01" . pack('CQ<Q<', 2, 9, 3);
seed 'kv', 'digests', "\x01" . pack('CQ<Q<VVQ<Q<', 3, 9, 3, 0, 2, 1, 2);
seed 'kv', 'done', "\x01" . pack('CQ<Q<CVQ<', 4, 9, 3, 0, 2, 8192);
seed 'kv', "verdict-$_", "\x01" . pack('CQ<Q<C', $_, 9, 3, 1) for 5, 6, 7;
seed 'kv', 'layouts', "\x02$layout$layout";
seed 'kv', 'plan', "\x03" . pack('C6', 0, 0, 2, 2, 8, 15) . pack('C3', 8, 0, 3) . pack('C3', 4, 1, 2) . pack('vvCvC', 0, 40, 16, 400, 0)
    . pack('vvCvC', 3, 9, 4, 400, 0);
seed 'kv', 'plan-layers', "\x03" . pack('C6', 1, 1, 1, 1, 3, 3) . pack('C3', 200, 1, 4) . pack('C4', 9, 10, 11, 199) . pack('vvCvC', 5, 19, 3, 99, 0);

# peer: which, bytes
sub frame { return pack 'vCCvvVVVV', 0x5044, 1, @_ }
seed 'peer', 'frame-link', "\x01" . frame(5, 0, 0, 0, 0, 0, 0);
seed 'peer', 'frame-message', "\x01" . frame(17, 1, 2, 7, 4, 0, 0) . 'abcd';
seed 'peer', 'frame-damaged', "\x00" . frame(16, 0, 1, 1, 0, 0, 0);
seed 'peer', 'preamble', "\x02" . pack('vvVVV', 1, 1, 1, 65536, 1 << 20) . ('n' x 32);
seed 'peer', 'heartbeat', "\x04" . pack('Q<Q<Q<VV', 1, 2, 3, 0, 0);

# xport: which, bytes
my $head = pack('vCCvvQ<Q<Q<VVVV', 0x5850, 1, 4, 1, 0, 9, 3, 0, 16, 0, 1, 0) . ('t' x 16);
seed 'xport', 'head', "\x01$head";
seed 'xport', 'hello', "\x02" . $node . $node . ('k' x 16) . pack('Q<VVvvvx2Vx4a32', 5, 65536, 1000, 0, 2, 1, 1, 'planes');
seed 'xport', 'address', "\x03" . pack('VCCvvv', 0x41585044, 1, 1, 2, 9000, 5) . ("\0" x 16) . ('k' x 16) . pack('V', 1) . '/sock';
seed 'xport', 'grant', "\x04" . pack('VCCv', 0x47585044, 1, 1, 1) . $node . $node . pack('Q<Q<Q<', 9, 3, 8192) . ('t' x 16);

# codec: kind, number of plain bytes, what planes makes of them
sub plane { my ($bytes) = @_; return pack 'V/a*', $bytes }
my $rle = "\x28\xb5\x2f\xfd\x20\x40" . substr(pack('V', 64 << 3 | 3), 0, 3) . "\x07";
seed 'codec', 'plain', "\x00" . pack('v', 0) . join '', map { chr($_ % 5) } 0 .. 299;
seed 'codec', 'floats', "\x08" . pack('v', 0) . pack 'f<*', map { sin $_ } 0 .. 199;
seed 'codec', 'as-it-is', "\x01" . pack('v', 5) . "P\x01\x02\x00" . (pack('V', 0x80000003) . 'abc') x 2;
seed 'codec', 'zstd', "\x01" . pack('v', 128) . "P\x01\x02\x00" . pack('V', 0x80000040) . ('m' x 64) . plane($rle) . 'z';
seed 'codec', 'four', "\x01" . pack('v', 255) . "P\x01\x04\x00" . plane($rle) x 4;
seed 'xport', 'crc', "\x05" . join '', map { chr($_ * 7 % 256) } 0 .. 600;
seed 'xport', 'ranges', "\x06\x05" . pack('C*', 1, 0, 10, 1, 20, 30, 1, 10, 20, 0, 5, 25, 1, 200, 255, 0, 0, 255);
seed 'xport', 'segs', "\x07\x03" . pack('(vCC)3', 0, 16, 0, 16, 16, 0, 100, 50, 0) . pack('vvvv', 0, 82, 20, 30);

# vocab: mode, text
seed 'vocab', 'text', "\x00Repeat these words: lion, lamp.  \xe2\x96\x81 <|im_start|>user\n \xf0\x9f\x98\x80\xff";
seed 'vocab', 'blanks', "\x00   ";
seed 'vocab', 'template', "\x01{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

# gguf: a model with two layers of nothing much
sub gs { return pack 'Q</a*', $_[0] }
sub kv_str { return gs($_[0]) . pack('V', 8) . gs($_[1]) }
sub kv_u32 { return gs($_[0]) . pack 'VV', 4, $_[1] }
sub kv_f32 { return gs($_[0]) . pack 'Vf<', 6, $_[1] }
sub kv_bool { return gs($_[0]) . pack 'VC', 7, $_[1] }
my @pieces = ('<unk>', '<s>', '<|im_start|>', '<|im_end|>', (map { sprintf '<0x%02X>', $_ } 0 .. 255), "\xe2\x96\x81", 'H', 'i', 'Hi');
my @kinds = (2, 3, 3, 3, (6) x 256, 1, 1, 1, 1);
my ($dim, $heads, $kv_heads, $ffn, $vocab) = (32, 4, 2, 32, scalar @pieces);
my @keys = (
    kv_str('general.architecture', 'llama'), kv_u32('llama.block_count', 1), kv_u32('llama.context_length', 64),
    kv_u32('llama.embedding_length', $dim), kv_u32('llama.feed_forward_length', $ffn),
    kv_u32('llama.attention.head_count', $heads), kv_u32('llama.attention.head_count_kv', $kv_heads),
    kv_u32('llama.rope.dimension_count', $dim / $heads), kv_f32('llama.rope.freq_base', 10000),
    kv_f32('llama.attention.layer_norm_rms_epsilon', 1e-5), kv_str('tokenizer.ggml.model', 'llama'),
    gs('tokenizer.ggml.tokens') . pack('VVQ<', 9, 8, $vocab) . join('', map { gs($_) } @pieces),
    gs('tokenizer.ggml.scores') . pack('VVQ<f<*', 9, 6, $vocab, map { -$_ } 1 .. $vocab),
    gs('tokenizer.ggml.token_type') . pack('VVQ<V*', 9, 5, $vocab, @kinds),
    kv_u32('tokenizer.ggml.bos_token_id', 1), kv_u32('tokenizer.ggml.eos_token_id', 3),
    kv_bool('tokenizer.ggml.add_space_prefix', 0),
);
sub model {
    my ($keys, $tensors) = @_;
    my ($infos, $data) = ('', '');
    for my $t (@$tensors) {
        my ($name, $type, @dims) = @$t;
        my $n = 1;
        $n *= $_ for @dims;
        my $bytes = $type == 8 ? $n / 32 * 34 : $type == 1 ? $n * 2 : $n * 4;
        $infos .= gs($name) . pack('V', scalar @dims) . pack('Q<*', @dims) . pack('VQ<', $type, length $data);
        $data .= "\0" x (($bytes + 31) & ~31);
    }
    my $front = 'GGUF' . pack('VQ<Q<', 3, scalar @$tensors, scalar @$keys) . join('', @$keys) . $infos;
    return $front . ("\0" x (-length($front) % 32)) . $data;
}
my $kv = $dim / $heads * $kv_heads;
my @tensors = (
    ['token_embd.weight', 8, $dim, $vocab], ['output_norm.weight', 0, $dim], ['blk.0.attn_norm.weight', 0, $dim],
    ['blk.0.ffn_norm.weight', 0, $dim], ['blk.0.attn_q.weight', 8, $dim, $dim], ['blk.0.attn_k.weight', 8, $dim, $kv],
    ['blk.0.attn_v.weight', 1, $dim, $kv], ['blk.0.attn_output.weight', 8, $dim, $dim],
    ['blk.0.ffn_gate.weight', 8, $dim, $ffn], ['blk.0.ffn_up.weight', 8, $dim, $ffn], ['blk.0.ffn_down.weight', 8, $ffn, $dim],
);
seed 'gguf', 'model', model(\@keys, \@tensors);
seed 'gguf', 'keys', model([@keys[0 .. 4], gs('list') . pack('VVQ<', 9, 4, 3) . pack('VVV', 1, 2, 3),
    gs('u64') . pack('VQ<', 10, 5), kv_bool('b', 1)], [['t', 0, 2, 3], ['u', 1, 32]]);
seed 'gguf', 'empty', model([], []);
seed 'gguf', 'short', substr model(\@keys, \@tensors), 0, 300;

# split: bits, then the answer of a prefill server
my $params = '{"ctx_request_id":4611686018427387905 , "request_type":"context_only","first_gen_tokens":[613],"ctx_usage":null,'
    . '"encoded_opaque_state":"AAE=","disagg_request_id":4611686018427387905}';
my $rest = '"usage":{"prompt_tokens":2,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":1}},"prompt_token_ids":[1,881]}';
seed 'split', 'chat', "\x01" . '{"id":"a","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"length",'
    . "\"disaggregated_params\":$params}],$rest";
seed 'split', 'usage', "\x10" . qq({"choices":[{"text":"x","disaggregated_params":$params}],$rest);
seed 'split', 'final', "\x07" . qq({"id":"a",\n"object":"chat.completion","choices":[{"index":0,"message":{"content":null,"tool_calls":[{"id":"t"},{}, 3]},\r\n)
    . qq("finish_reason":"tool_calls","disaggregated_params":null}],$rest);
seed 'split', 'final-text', "\x06" . qq({"object":"text_completion","choices":[{"text":"x","finish_reason":"stop"}],$rest);
seed 'split', 'final-plain', "\x00" . qq({"choices":[{"finish_reason":"stop"}]});
seed 'split', 'one', "\x0b" . qq({"choices":[{"message":{"tool_calls":[]}}],"object":1});
seed 'split', 'no-object', "\x08" . '{"choices":[7]}';
seed 'split', 'two', "\x00" . '{"choices":[{},{}]}';
seed 'split', 'twice', "\x10" . '{"choices":[{"finish_reason":null,"disaggregated_params":{"ctx_request_id":1,"a":1,"request\\u005ftype":1,"b":1,"request_type":2,"c":1,'
    . '"ctx_usage":1,"d":1,"request_type":2,"e":1,"request_type":2}}],"usage":{}}';
seed 'split', 'usage-twice', "\x06" . '{"choices":[{"finish_reason":"stop"}],"usage":{"completion_tokens":1,"completion_tokens":2}}';
seed 'split', 'empty', "\x00" . '{"choices":[{"disaggregated_params":{"ctx_request_id":1,"request_type":null}}]}';

# discovery: what it is, then JSON
seed 'discovery', 'file', "\0" . '{"endpoints":[{"name":"a","url":"http://10.0.0.1:8000","type":"vllm","roles":["prefill","decode"],'
    . '"models":["m"],"weight":50,"labels":{"llm-d.ai/role":"both"},"epoch":7},'
    . '{"name":"b","namespace":"ns","address":"fd00::1","port":"8000"}],"peers":[{"name":"c","address":"h:7000"}]}';
seed 'discovery', 'file-wrong', "\0" . '{"endpoints":[{"name":"a","address":"10.0.0.1","port":99999,"urll":1}]}';
seed 'discovery', 'slice', "\1" . '{"metadata":{"name":"s","labels":{"model":"m"}},"addressType":"IPv4","ports":[{"name":"http","port":8000}],'
    . '"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true},"targetRef":{"kind":"Pod","name":"p","uid":"u"}},'
    . '{"addresses":["fd00::1"]},{"addresses":["0.0.0.0"]}]}';
seed 'discovery', 'pod', "\2" . '{"metadata":{"name":"p","uid":"u","labels":{"llm-d.ai/role":"decode"}},"status":{"podIP":"10.0.0.1",'
    . '"conditions":[{"type":"Ready","status":"True"}]}}';
seed 'discovery', 'node', "\3" . '{"metadata":{"name":"p"},"status":{"podIP":"fd00::2","conditions":[{"type":"Ready","status":"True"}]}}';
