# SPDX-License-Identifier: Apache-2.0
# What the runs of the kill matrix say together: how long a client waited, how soon
# everything was free, how soon a node was back.
package PDPlane::Kill::Figures;

use strict;
use warnings;

# new; add(FIGURES of a run)...; lines: a table in Markdown; hung: how many complete
# answers waited for a node that hung or for a silent link of one, while the machine was
# not slow, the longest time from the fault to their end, and which that was.
sub new { return bless { rows => {}, hung => [ 0, 0, '' ] }, $_[0] }

sub hung { return @{ $_[0]{hung} } }

sub add {
    my ($self, $run) = @_;
    my ($topology, $component, $fault) = split m{/}, $run->{name};
    my $row = $self->{rows}{"$component $fault"} //= { runs => 0, ends => {} };
    $row->{runs}++;
    $row->{ends}{ $run->{end} }++;
    push @{ $row->{took} }, $run->{took} if $run->{end} eq 'complete';
    if ($run->{end} eq 'complete' && $run->{slow} <= 1 && $fault =~ /^(?:pause|stop|silence)$/ && $component =~ /^(?:prefill|decode)$/) {
        $self->{hung}[0]++;
        @{ $self->{hung} }[ 1, 2 ] = ($run->{took}, "$run->{name} $run->{link}") if $run->{took} > $self->{hung}[1];
    }
    push @{ $row->{clean} }, $run->{clean} if defined $run->{clean};
    push @{ $row->{up} }, $run->{up} if defined $run->{up};
    return;
}

sub quantiles {
    my @s = sort { $a <=> $b } @{ $_[0] // [] } or return '-';
    return sprintf '%.2f / %.2f / %.2f', map { $s[ int($_ * $#s + 0.5) ] } 0.5, 0.99, 1;
}

sub lines {
    my ($self) = @_;
    my @out = ('| component, fault | runs | ends | fault to end of a complete answer | all free after the end | all nodes up again |',
        '| --- | --- | --- | --- | --- | --- |');
    for my $key (sort keys %{ $self->{rows} }) {
        my $row = $self->{rows}{$key};
        push @out, sprintf '| %s | %d | %s | %s | %s | %s |', $key, $row->{runs},
            join(', ', map { "$row->{ends}{$_} $_" } sort keys %{ $row->{ends} }), map { quantiles($row->{$_}) } qw(took clean up);
    }
    return @out;
}

1;
