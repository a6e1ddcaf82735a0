# SPDX-License-Identifier: Apache-2.0
# pdplane -t finds what would let a node fail at its start: (text, message [, hint]).
use strict;
use warnings;

use Test::More;

use PDPlane::Test;

my $path = 'module_path = [ "' . module_folder() . "\" ];\n";
my $model = srcdir() . '/contrib/tinymodel/tiny.gguf';
my $engine = qq(engine = ( { name = "t"; type = "ref"; model = "$model"; roles = [ "ROLES" ]; } ););
sub engine { my ($roles) = @_; return $engine =~ s/ROLES/$roles/r }

my ($rc, $out, $err) = check_text(qq{${path}load = [ "router" ];\n});
is $rc, 0, 'a router alone' or diag $err;
is $err, '', 'without a word';

spew('not.gguf', "this is no model\n");
spew('not.pem', "this is no certificate\n");
spew('not.key', "this is no key\n", 0600);
my @cases = (
    ['', 'pd.conf: error: the node has no role', 'load one or more role modules'],
    ['load = [ "tcp" ];', 'pd.conf:2: error: the node has no role'],
    ['load = [ "decode" ];', 'pd.conf:2: error: the node has the role decode and no engine for it',
        'add an engine, with "decode" among its roles'],
    ['load = [ "decode", "ref" ]; ' . engine('prefill'), 'the node has the role decode and no engine for it'],
    ['load = [ "router", "ref", "prefill" ]; ' . engine('decode'), 'the node has the role prefill and no engine for it'],
    ['load = [ "router" ]; listen = ( { address = "localhost:80"; api = "admin"; } );',
        'pd.conf:2: error: "localhost:80" is no address to listen on', 'write HOST:PORT with a numeric host, or unix:PATH'],
    ['load = [ "router" ]; peers = ( { address = "decode"; } );', 'pd.conf:2: error: "decode" is no address of a peer'],
    ['load = [ "router" ]; peers = ( { address = "decode:0"; } );', 'pd.conf:2: error: "decode:0" is no address of a peer'],
    ["load = [ \"router\", \"openai\" ];\nendpoints = ( { name = \"a\"; type = \"openai\"; url = \"10.0.0.1:80\"; } );",
        'pd.conf:3: error: url "10.0.0.1:80" is not understood', 'write http://HOST:PORT'],
    ['load = [ "router", "openai" ]; endpoints = ( { name = "a"; type = "openai"; url = "http://10.0.0.1:80"; ' .
        'tls = { ca = "none.pem"; }; } );', 'tls is given but url is not https://'],
    ['load = [ "router" ]; listen = ( { address = "127.0.0.1:0"; api = "admin"; tls = { certificate = "none.pem"; key = "none.key"; }; } );',
        'none.pem": No such file'],
    ['load = [ "router" ]; listen = ( { address = "127.0.0.1:0"; api = "admin"; tls = { certificate = "not.pem"; key = "not.key"; }; } );',
        'pd.conf:2: error: .*not\.pem'],
    ['load = [ "router" ]; listen = ( { address = "127.0.0.1:0"; api = "openai"; api_keys_file = "not.key"; } );', 'pd.conf:2: error: .*not\.key line 1 is not'],
    ['load = [ "router" ]; scheduler = { profiles = ( { name = "decode"; score = ( { use = "nothing"; } ); } ); };',
        'pd.conf:2: error: there is no scorer "nothing"'],
    ["load = [ \"router\" ];\nlink = { suspect = \"1s\"; };", 'pd.conf:3: error: heartbeat, suspect and dead must be ascending times',
        'suspect is longer than heartbeat'],
    ["load = [ \"router\", \"tcp\" ];\ntransport = { tcp = { tls = \"required\"; }; };",
        'pd.conf:3: error: tls is "required", but the node has no link.tls', 'set certificate, key and ca in link = { tls'],
    ["load = [ \"router\", \"tcp\" ];\ntransport = {\n tcp = { codec = \"planes\"; }; };",
        'pd.conf:4: error: there is no codec "planes"', 'add its module to load'],
    ['load = [ "decode", "ref" ]; engine = ( { name = "t"; type = "ref"; model = "none.gguf"; } );',
        'pd.conf:2: error: .*cannot open the model \S*none\.gguf: No such file'],
    ['load = [ "decode", "ref" ]; engine = ( { name = "t"; type = "ref"; model = "not.gguf"; } );',
        'pd.conf:2: error: .*the model \S*not\.gguf is not a GGUF file'],
);
for my $case (@cases) {
    my ($text, $message, $hint) = @$case;
    ($rc, $out, $err) = check_text("$path$text\n");
    (my $name = $text) =~ s/\s+/ /g;
    is $rc, 1, "refused: $name";
    like $err, qr/$message/, 'told why';
    like $err, qr/^  hint: \Q$hint\E/m, 'told what to do' if defined $hint;
}

($rc, $out, $err) = check_text(qq{${path}load = [ "decode" ];\npeers = ( { address = "x"; } );\nlisten = ( { address = "y"; api = "peer"; } );\n});
like $err, qr/has 3 errors/, 'all are told at once';

($rc, $out, $err) = check_text(qq{${path}load = [ "decode", "ref" ];\n} . engine('decode') .
    qq{\nlisten = ( { address = "127.0.0.1:0"; api = "openai"; } );\n});
is $rc, 0, 'what nobody answers is no error';
like $err, qr/pd\.conf:4: warning: nobody answers clients on 127\.0\.0\.1:0: the node has no router/, 'but told';

# Nothing listens during the check, and what it makes is gone again.
($rc, $out, $err) = check_text(qq{${path}load = [ "router" ];\nlisten = ( { address = "127.0.0.1:1"; api = "openai"; } );\ncontrol = "c.sock";\n});
is $rc, 0, 'a port that is not ours to take';
ok !-e folder() . '/c.sock', 'no socket is made';

done_testing;
