# SPDX-License-Identifier: Apache-2.0
# The HTTP server as curl sees it.
use strict;
use warnings;
use Test::More;
use IPC::Open2;
use File::Temp qw(tempdir);

my $curl = (grep { -x "$_/curl" } split /:/, $ENV{PATH})[0];
plan skip_all => 'curl is not installed' unless defined $curl;

my $dir = $ENV{PD_BUILDDIR} // '.';
my $pid = open2(my $out, my $in, "$dir/t/net/httpd");
my $line = <$out> // '';
my ($port) = $line =~ /^PORT (\d+)/ or die "no port in \"$line\"";
my $url = "http://127.0.0.1:$port";
my $tmp = tempdir(CLEANUP => 1);

sub curl {
    my $text = join ' ', map { "'$_'" } @_;
    my $got = `curl -s --noproxy '*' --max-time 20 $text 2>&1`;
    return ($? >> 8, $got);
}

my ($rc, $got) = curl("$url/hello");
is $got, "hello\n", 'a plain GET';
($rc, $got) = curl('-i', "$url/hello", "$url/hello");
is scalar(() = $got =~ /HTTP\/1\.1 200 OK/g), 2, 'two on one connection';
($rc, $got) = curl('-w', '%{num_connects}', '-o', '/dev/null', "$url/hello", '-o', '/dev/null', "$url/hello");
is $got, '10', 'the second one connects no more';
($rc, $got) = curl('-I', "$url/hello");
like $got, qr/content-length: 6/, 'HEAD';
($rc, $got) = curl('-d', 'abc', "$url/echo");
is $got, 'abc', 'POST with a length';
($rc, $got) = curl('-H', 'Transfer-Encoding: chunked', '-d', 'abc', "$url/echo");
is $got, 'abc', 'POST in chunks';
($rc, $got) = curl('-0', "$url/hello");
is $got, "hello\n", 'HTTP/1.0';

open my $fh, '>', "$tmp/big" or die;
print $fh 'x' x 3_000_000;
close $fh;
($rc, $got) = curl('-T', "$tmp/big", '-o', "$tmp/back", "$url/echo");
is -s "$tmp/back", 3_000_000, 'PUT of 3 MB with Expect: 100-continue';
open $fh, '>>', "$tmp/big" or die;
print $fh 'x' x 6_000_000;
close $fh;
($rc, $got) = curl('-T', "$tmp/big", '-w', '%{http_code}', '-o', '/dev/null', "$url/echo");
is $got, '413', 'PUT of 9 MB is refused';
($rc, $got) = curl('-T', "$tmp/big", '-H', 'Expect:', '-w', '%{http_code}', '-o', "$tmp/back", "$url/echo");
is $got, '413', 'also when it does not wait for us';

($rc, $got) = curl('-N', "$url/stream");
is $got, join('', map { "data: {\"n\":$_}\n\n" } 5, 4, 3, 2, 1) . "data: [DONE]\n\n", 'a stream of events';
($rc, $got) = curl('-w', '%{http_code}', "$url/none");
like $got, qr/^\{"error":\{"message":"There is nothing here\.","type":"not_found_error","param":null,"code":"unknown_path"\}\}404$/,
    'an unknown path';
($rc, $got) = curl('-X', 'DELETE', '-i', "$url/echo");
like $got, qr/405 Method Not Allowed.*allow: POST, PUT/s, 'a method that is not offered';
($rc, $got) = curl('-H', 'X-Request-Id: abc-1', '-i', "$url/hello");
like $got, qr/x-request-id: abc-1\r/, 'the request id comes back';
($rc, $got) = curl('--path-as-is', '-w', '%{http_code}', '-o', '/dev/null', "$url/../hello");
is $got, '400', 'dots in the path';

close $in;
waitpid $pid, 0;
is $?, 0, 'the server leaves nothing open';
done_testing;
