#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The option of spare_blocks: taken, refused, explained.
use strict;
use warnings;

use File::Temp qw(tempfile);
use Test::More tests => 5;

my ($plane, $modules, $module) = @ENV{qw(PD_PLANE PD_MODULES PD_MODULE)};

# What pdplane -t says of a value.
sub check {
    my ($option) = @_;
    my ($out, $name) = tempfile(UNLINK => 1);
    print {$out} <<"END";
module_path = [ "$modules" ];
load = [ "router", "$module" ];
listen = ( { address = "127.0.0.1:0"; api = "openai"; } );
peers = ( { address = "127.0.0.1:9"; } );
scheduler = { scorers = ( { module = "spare_blocks"; $option } );
              profiles = ( { name = "decode"; score = ( { use = "spare_blocks"; } ); } ); };
END
    close $out;
    my $said = qx("$plane" -t -c "$name" 2>&1);
    return ($?, $said);
}

my ($rc, $said) = check('unknown = 0.2;');
is $rc, 0, 'a value' or diag $said;
($rc, $said) = check('');
is $rc, 0, 'no value' or diag $said;
($rc, $said) = check('unknown = 1.5;');
isnt $rc, 0, 'above 1';
($rc, $said) = check('unknwon = 0.5;');
like $said, qr/did you mean "unknown"/, 'misspelt';
like qx("$plane" -O "$module"), qr/unknown  \(number, 0 to 1, default 0\.5\)/, 'explained';
