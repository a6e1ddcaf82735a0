dnl SPDX-License-Identifier: Apache-2.0
PD_MODULE([kube], [discovery of servers and nodes in a Kubernetes cluster])
