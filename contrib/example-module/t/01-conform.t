#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# The contract of every scorer.
use strict;
use warnings;

exec { $ENV{PD_CONFORM} } $ENV{PD_CONFORM}, $ENV{PD_MODULE};
