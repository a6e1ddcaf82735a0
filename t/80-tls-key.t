# SPDX-License-Identifier: Apache-2.0
# Private keys with a passphrase: where it comes from, what is wrong with it, that
# no terminal is ever asked, and that both files are renewed in a running node.
use strict;
use warnings;

use Fcntl qw(O_RDWR O_NOCTTY);
use IO::Select;
use POSIX ();
use Test::More;

use PDPlane::Certs qw(have_openssl authority leaf pem key);
use PDPlane::Daemon qw(until_true port);
use PDPlane::Test;

plan skip_all => 'needs the commands openssl and curl' unless have_openssl() && `curl --version 2>&1` =~ /^curl/;

my $modules = 'module_path = [ "' . module_folder() . "\" ];\n";
authority('ca');
leaf('server', 'ca', 'DNS:localhost,IP:127.0.0.1');
spew('right.pass',  "open sesame\n",       0600);
spew('wrong.pass',  "open says me\n",      0600);
spew('empty.pass',  "\n",                  0600);
spew('zero.pass',   "open\0sesame\n",      0600);
spew('open.pass',   "open sesame\n",       0644);
spew('long.pass',   'x' x 1001 . "\n",     0600);
spew('most.pass',   'x' x 999 . "\n",     0600);

# lock NAME, PASSPHRASE FILE, FORM...: the key of the server, encrypted.
sub lock_key {
    my ($name, $pass, @form) = @_;
    my $old = umask 077;
    system('openssl', 'pkey', '-in', key('server'), '-out', key($name), '-passout', 'file:' . folder() . "/$pass", @form) == 0
        or die 'openssl pkey';
    umask $old;
    return;
}
lock_key('pkcs8',       'right.pass', '-aes256');
lock_key('traditional', 'right.pass', '-aes256', '-traditional');
lock_key('long',        'most.pass',  '-aes256');
like slurp(key('pkcs8')),       qr/BEGIN ENCRYPTED PRIVATE KEY/, 'a key in PKCS #8 form';
like slurp(key('traditional')), qr/Proc-Type: 4,ENCRYPTED/,      'a key in the traditional form';

sub group {
    my ($key, $pass) = @_;
    return sprintf 'tls = { certificate = "%s"; key = "%s"; ca = "%s"; %s };', pem('server'), key($key), pem('ca'),
        defined $pass ? qq(key_passphrase_file = "$pass.pass";) : '';
}
my %place = (
    listen    => sub { qq(load = [ "router" ];\nlisten = ( { address = "127.0.0.1:0"; api = "openai"; @_ } );) },
    endpoints => sub { qq(load = [ "router", "openai" ];\n) .
        qq(endpoints = ( { name = "a"; type = "openai"; url = "https://127.0.0.1:1"; @_ } );) },
    link      => sub { qq(load = [ "router" ];\nlink = { @_ };) },
);
for my $where (sort keys %place) {
    for my $case (
        ['pkcs8',       'right'],
        ['traditional', 'right'],
        ['long',        'most'],
        ['server',      'right'],
        ['pkcs8',       undef,   'the private key in pkcs8\.key has a passphrase', 'set key_passphrase_file to a file of mode 0640'],
        ['traditional', undef,   'the private key in traditional\.key has a passphrase', 'set key_passphrase_file'],
        ['pkcs8',       'wrong', 'the passphrase in wrong\.pass does not open the private key in pkcs8\.key', 'openssl pkey'],
        ['traditional', 'wrong', 'the passphrase in wrong\.pass does not open the private key in traditional\.key', 'openssl pkey'],
        ['pkcs8',       'empty', '"empty\.pass" is empty', 'it holds the passphrase of the key'],
        ['pkcs8',       'zero',  '"zero\.pass" contains a zero byte', 'it holds the passphrase'],
        ['pkcs8',       'open',  '"open\.pass" has mode 0644, which is more than 0640', 'chmod 0600'],
        ['pkcs8',       'long',  '"long\.pass" has more than 1000 bytes'],
        ['pkcs8',       'none',  '"none\.pass": No such file'],
    ) {
        my ($key, $pass, $why, $hint) = @$case;
        my ($rc, $out, $err) = check_text($modules . $place{$where}->(group($key, $pass)) . "\n");
        my $name = "$where, key $key, " . (defined $pass ? "passphrase $pass" : 'no passphrase');
        is $rc, defined $why ? 1 : 0, $name or diag $err;
        like $err, qr/pd\.conf:3: error: .*$why/, "$name: told why" if defined $why;
        like $err, qr/^  hint: .*$hint/m, "$name: told what to do" if defined $hint;
        is $err, '', "$name: no word about it" unless defined $why;
        unlike "$out$err", qr/sesame|says me|xxx/, "$name: nothing of it is shown";
    }
}
{
    my ($rc, $out, $err) = check_text($modules . $place{endpoints}->('tls = { key_passphrase_file = "right.pass"; };') . "\n");
    is $rc, 1, 'a passphrase without a key';
    like $err, qr/key_passphrase_file is given, but no key/, 'is told';
}

# ---- at a terminal
SKIP: {
    my ($lock, $number) = (pack('i', 0), pack('i', 0));
    my $has = sysopen my $master, '/dev/ptmx', O_RDWR | O_NOCTTY;
    skip 'no terminals here', 2
        unless $has && ioctl($master, 0x40045431, $lock) && ioctl($master, 0x80045430, $number);
    my $tty = '/dev/pts/' . unpack 'i', $number;
    my $path = spew('tty.conf', $modules . $place{listen}->(group('pkcs8')) . "\n");
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        POSIX::setsid();
        # The first terminal that is opened becomes the controlling one.
        sysopen my $in, $tty, O_RDWR or exit 126;
        POSIX::dup2(fileno $in, $_) for 0 .. 2;
        exec { $ENV{PD_BINARY} // builddir() . '/pdplane' } 'pdplane', '-t', '-c', $path or exit 127;
    }
    my ($said, $deadline) = ('', time + 60);
    while (time < $deadline && IO::Select->new($master)->can_read($deadline - time)) {
        last unless sysread $master, my $more, 4096;
        $said .= $more;
    }
    kill 'KILL', $pid if time >= $deadline;
    waitpid $pid, 0;
    is $? >> 8, 1, 'at a terminal: it ends by itself';
    like $said, qr/has a passphrase/, 'at a terminal: the same error';
    unlike $said, qr/pass ?phrase:/i, 'at a terminal: nobody is asked';
}

# ---- in a running node
my $node = PDPlane::Daemon->new('locked', sprintf q(
load = [ "router", "decode", "ref" ];
engine = ( { name = "tiny"; type = "ref"; model = "%%%%MODEL%%%%"; roles = [ "decode" ]; } );
listen = ( { address = "127.0.0.1:%%%%PORT_plain%%%%"; api = "admin"; },
           { address = "127.0.0.1:%%%%PORT_tls%%%%"; api = "openai";
             tls = { certificate = "%s"; key = "%s"; key_passphrase_file = "%s"; }; } );
), pem('server'), key('pkcs8'), folder() . '/right.pass');
$node->start;
my $port = port('tls');
my $ca   = pem('ca');
sub health {
    my ($name) = @_;
    my $got = `curl -sS --noproxy '*' -m 20 --cacert $ca --resolve $name:$port:127.0.0.1 https://$name:$port/health -o /dev/null -w '%{http_code}' 2>&1`;
    return $got eq '200';
}
ok health('localhost'), 'a node serves with such a key';
# A new key with another passphrase: one file comes after the other, as with any renewal.
leaf('server', 'ca', 'DNS:localhost,IP:127.0.0.1,DNS:renewed');
lock_key('pkcs8', 'wrong.pass', '-aes256');
$node->expect_log(qr/changed certificates cannot be used/);
ok until_true(20, sub { health('localhost'); $node->log_text =~ /the old ones stay: the passphrase in \S+right\.pass does not open/ }),
    'a changed key with a passphrase that does not open it leaves the old one in use';
ok health('localhost'), 'which serves';
ok !health('renewed'), 'and is the old one';
spew('right.pass', "open says me\n", 0600);
ok until_true(20, sub { health('renewed') }), 'once the passphrase follows, both are in use';
unlike $node->log_text, qr/sesame|says me|PRIVATE KEY/, 'nothing of it is in the log';
$node->stop;

done_testing;
