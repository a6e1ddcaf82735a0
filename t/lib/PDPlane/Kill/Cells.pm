# SPDX-License-Identifier: Apache-2.0
# The kill matrix: every fault, of every component, at every stage of a request,
# in two topologies; and what must come of it, by rules.
#
# A cell is named TOPOLOGY/COMPONENT/FAULT/STAGE, as 2p2d/decode/kill/S10.7.
package PDPlane::Kill::Cells;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(cells cell_of expected links_of is_hung TOKENS);

use constant TOKENS => 12;      # of each answer

our @topologies = qw(1p1d 2p2d);
our @components = qw(prefill decode router manager client);
# kill: kill -9.  pause: SIGSTOP for 10 s.  stop: SIGSTOP for good.  term, drain:
# SIGTERM (end now), SIGQUIT (end when the requests have).  reset, silence: each
# link of the component, one run for each.
our @faults = qw(kill pause stop term drain reset silence);
# Where the request is, and the point at which a process is held then: for
# PDPlane::Kill::Client (client), t/modules/probe.c (ROLE STAGE TOKENS) or
# t/modules/fault.c (kv ...).
our @stages = (
    [ 'S0',      'client' ],
    [ 'S1',      'client' ],
    [ 'S2',      'client' ],
    [ 'S3',      'router 3 0' ],
    [ 'S4',      'decode 4 0' ],
    [ 'S5',      'prefill 5 0' ],
    [ 'S6',      'prefill 6 1' ],
    [ 'S7',      'decode 0 0' ],
    [ 'S8.0',    'kv post' ],
    [ 'S8.1',    'kv stored first' ],
    [ 'S8.half', 'kv stored half' ],
    [ 'S8.most', 'kv stored most' ],
    [ 'S8.all',  'kv stored all' ],
    [ 'S9',      'decode 9 0' ],
    [ 'S10.1',   'decode 10 2' ],
    [ 'S10.7',   'decode 10 8' ],
    [ 'S10.' . (TOKENS - 1), 'decode 10 ' . TOKENS ],
    [ 'S11',     'router 11 ' . TOKENS ],
    [ 'S12',     'client' ],
);
my %point = map { @$_ } @stages;
my %order = map { $stages[$_][0] => $_ } 0 .. $#stages;

sub cell_of {
    my ($name) = @_;
    my ($topology, $component, $fault, $stage) = split m{/}, $name;
    return { name => $name, topology => $topology, component => $component, fault => $fault, stage => $stage,
        point => $point{$stage}, at => $order{$stage} };
}

sub cells {
    my @names;
    for my $t (@topologies) {
        for my $c (@components) {
            for my $f (@faults) {
                push @names, map { "$t/$c/$f/$_->[0]" } @stages;
            }
        }
    }
    return map { cell_of($_) } @names;
}

# The links of a component: names of PDPlane::Relay, with one number for its node.
#   client: client to router         rp, rd: router to prefill, decode
#   dp: decode to prefill, requests  kv: prefill to decode, KV
sub links_of {
    my ($component, $i, $n) = @_;
    my @all = 1 .. $n;
    return (["client"])                                                        if $component eq 'client';
    return (["client"], [ map { "rd$_" } @all ], [ map { "rp$_" } @all ])      if $component eq 'router';
    return (["rd$i"], [ map { "dp$_" } @all ], ["kv$i"])                       if $component eq 'decode';
    return (["rp$i"], ["dp$i"], [ map { "kv$_" } @all ])                       if $component eq 'prefill';
    return ([]);
}

sub is_hung { return $_[0]{fault} =~ /^(?:pause|stop|silence)$/ }

# expected(CELL, LINK): which ends a client may see.
#   complete  the answer, byte for byte as without faults
#   error     a status with an error object, or one error event and no [DONE]
#   cut       a part of the answer, no [DONE], no last chunk
#   none      nothing at all
# The rules: a request needs a client, a router and a decode node, and no prefill
# node, because a decode node can compute a prompt itself.  As long as those are
# there it completes.
sub expected {
    my ($cell, $link) = @_;
    my ($component, $fault, $at) = @$cell{qw(component fault at)};
    my %at = map { $_ => $order{$_} } keys %order;
    my ($admitted, $finished, $idle) = ($at >= $at{S3}, $at >= $at{S11}, $at == $at{S12});
    my $link_kind = ($link->[0] // '') =~ /^([a-z]+)/ ? $1 : '';

    if ($component eq 'client' || $link_kind eq 'client') {
        # Nobody is there to be told, but a client that only slept gets all.
        return qw(complete) if $fault eq 'pause' && $admitted;
        return qw(complete error) if $fault eq 'pause';
        # A new connection may be made behind an idle one that ended.
        return qw(complete) if $idle && $fault eq 'reset';
        return qw(none cut complete);
    }
    return qw(complete) if $component eq 'prefill';
    if ($component eq 'manager') {
        return qw(complete) unless $fault =~ /^(?:term|drain)$/;
        return qw(complete) if $fault eq 'drain' && $admitted && !$idle;
        return qw(complete error cut none) if !$admitted || $idle;
        return qw(complete error);
    }
    if ($component eq 'decode' || ($component eq 'router' && $link_kind ne '')) {
        return qw(complete) if $link_kind =~ /^(?:dp|kv|rp)$/ || $cell->{topology} eq '2p2d' && $component eq 'decode';
        return qw(complete) if $finished && !$idle;
        return qw(complete) if $fault eq 'drain' && $admitted && !$idle && $at != $at{S3} && $at != $at{S7};
        # A node that lives is back before a request gives up waiting for it.
        return qw(complete) if $fault eq 'reset';
        return qw(complete error) if $fault =~ /^(?:silence|pause|drain)$/;
        # The last token and the end may leave together, before the signal is heard.
        return qw(complete error) if $fault eq 'term' && $at == $at{S11} - 1;
        return qw(error);
    }
    # The process that holds the client's connection; behind an idle one the next
    # takes over, which may not know its nodes yet.
    return qw(complete error) if $idle && $fault =~ /^(?:kill|stop)$/;
    return qw(complete error none) if $idle && $fault =~ /^(?:term|drain)$/;
    # A connection that no worker had taken yet is the next one's.
    return qw(none cut complete error) if $fault =~ /^(?:kill|stop)$/ && !$admitted;
    return qw(none cut) if $fault eq 'kill' || $fault eq 'stop';
    return qw(complete error) if $fault eq 'pause';
    return qw(complete error cut none) if !$admitted;
    return qw(complete) if $fault eq 'drain';
    return qw(complete error);
}

1;
