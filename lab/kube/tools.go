// SPDX-License-Identifier: Apache-2.0

//go:build tools

// This file keeps what the lab builds from Kubernetes' module besides main.go in go.mod and go.sum.
package main

import (
	_ "k8s.io/kubernetes/test/e2e"
)
