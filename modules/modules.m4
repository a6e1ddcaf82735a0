dnl SPDX-License-Identifier: Apache-2.0
dnl One line per module, in the order of the summary.
m4_include([modules/engine/ref/module.m4])
m4_include([modules/scheduler/filter/role/module.m4])
m4_include([modules/scheduler/filter/health/module.m4])
m4_include([modules/scheduler/score/least_loaded/module.m4])
m4_include([modules/scheduler/score/load_aware/module.m4])
m4_include([modules/scheduler/score/prefix_cache/module.m4])
m4_include([modules/scheduler/pick/max_score/module.m4])
m4_include([modules/scheduler/pick/round_robin/module.m4])
m4_include([modules/scheduler/pick/random/module.m4])
m4_include([modules/scheduler/pick/weighted_random/module.m4])
m4_include([modules/scheduler/decide/pd_threshold/module.m4])
