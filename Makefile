# SPDX-License-Identifier: Apache-2.0
# The only entry point for people and for CI. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
ifdef CI
export CARGO_TERM_COLOR := never
export CARGO_TERM_PROGRESS_WHEN := never
export NO_COLOR := 1
# What is built once gains nothing from being built in pieces.
export CARGO_INCREMENTAL ?= 0
# A test that fails names its line by itself.
export CARGO_PROFILE_DEV_DEBUG ?= none
# Builds in a fraction of a release's time.
export PROFILE ?= lab
endif

XTASK := cargo run --quiet --package xtask --
# Root may install what is missing; everybody else is told.
BOOTSTRAP := scripts/bootstrap $(if $(filter 0,$(shell id -u)),,--check)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo demo-down lab
demo: bootstrap ## two-node cluster with our datapath, pods that talk, are isolated and are seen; stays up
	@scripts/demo

demo-down: ## remove the cluster of the demo
	@scripts/demo --down

lab: bootstrap kube ## a plain two-node Kubernetes without a network, to install something on
	@cargo build --quiet --package lab
	@target/debug/cilium-lab up

.PHONY: kube image kube-and-image ui bpf
kube: bootstrap ## build the lab's Kubernetes, containerd, CoreDNS, Helm and test images into target/kube; fetch Gateway API
	@lab/kube/build.sh
	@lab/kube/gateway/fetch.sh
	@lab/images/build.sh

image: bootstrap ## build the product's image into target/image/cilium.tar
	@deploy/images/build.sh

# Linkers and downloads of the one leave a processor to the other. The product has the first claim: its last crates wait for each other.
kube-and-image: bootstrap ## both, side by side
	@$(MAKE) image & image=$$!; trap 'kill $$image 2>/dev/null || true' EXIT; nice $(MAKE) kube; wait $$image

ui: bootstrap ## build the pages of hubble-ui, which the next build of the binary embeds
	@scripts/ui build

bpf: bootstrap ## build the kernel programs
	@cargo build --package datapath

.PHONY: ci check advisories test test-rest release-check mutants mutants-bpf fuzz fuzz-short attack restart upgrade vm conformance bench soak
ci: ## what CI runs: bootstrap, check, test
	@.ci/run

check: bootstrap-tests ## what needs no cluster: format, lints, layers, licences, size, quick tests, verifier budget
	@echo "== format"
	@cargo fmt --all --check
	@cargo fmt --manifest-path bpf/Cargo.toml --check
	@echo "== layers, licences, file size, unused dependencies"
	@$(XTASK) layers
	@$(XTASK) licences
	@$(XTASK) size
	@$(XTASK) unused
	@echo "== lints"
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@echo "== fences, licences and sources of all dependencies"
	@cargo deny --log-level error check bans licenses sources
	@echo "== pages: types and unit tests"
	@scripts/ui check
	@echo "== unit, property and golden tests"
	@$(XTASK) test quick
	@echo "== verifier budget"
	@if [ "$$(id -u)" = 0 ]; then cargo test --workspace --locked --test kernel budget; \
	else echo "not checked: loading programs needs root"; fi

advisories: bootstrap-tests ## known weaknesses of what we depend on; needs the network
	@cargo deny --log-level error check advisories

test: bootstrap-tests ## everything: unit, property, golden, program and lab tests (root)
	@$(XTASK) test quick
	@$(MAKE) test-rest

test-rest: bootstrap-tests kube-and-image ## what `make check` has not run of the tests (root)
	@$(XTASK) test rest
	@$(XTASK) test lab

release-check: bootstrap-tests advisories ## before a release: its image with the size of it, known weaknesses, the distribution's stock kernel; takes an hour
	@PROFILE=release deploy/images/build.sh
	@$(MAKE) vm

fuzz-short: bootstrap ## fuzz the parsers of untrusted input for half a minute each, as CI does
	@scripts/fuzz $(or $(FOR),30) $(ONLY)

fuzz: bootstrap ## fuzz the parsers of untrusted input for an hour each: make fuzz FOR=600 ONLY=hubble_filter
	@scripts/fuzz $(or $(FOR),3600) $(ONLY)

mutants: ## change the pure crates line by line and tell what no test notices; takes hours: make mutants CRATES='abi policy' SHARD=0/8
	@$(BOOTSTRAP) --mutants
	@SHARD=$(SHARD) scripts/mutants $(CRATES)

mutants-bpf: bootstrap ## change the kernel programs as bpf/mutants says and tell what no test notices; root: make mutants-bpf ONLY='words of names' [RELATED=1]
	@$(XTASK) mutants $(if $(RELATED),--related) $(ONLY)

attack: bootstrap image kube ## a pod and a machine on the wire attack for a minute with each way of routing: make attack FOR=600
	@CILIUM_ATTACK_SECONDS=$(or $(FOR),60) cargo test --workspace --locked --test attack

restart: bootstrap image kube ## agents killed, upgraded and uninstalled under more traffic than CI has (Services, new connections, masquerading), and twenty times under requests
	@CILIUM_ALL_TRAFFIC=1 cargo test --workspace --locked --test restart
	@CILIUM_KILLS=10 cargo test --workspace --locked --test services -- no_request_fails_while_agents_are_killed

upgrade: bootstrap image kube ## upgrade a lab from an older build under load: make upgrade FROM=COMMIT
	@scripts/upgrade "$(FROM)"

vm: ## the program tests on the distribution's stock kernel, in a virtual machine: make vm ONLY='words of names'
	@$(BOOTSTRAP) --vm
	@scripts/vm $(ONLY)

conformance: bootstrap image kube ## Kubernetes' own end-to-end tests in the lab: make conformance FOCUS='...' PROCS=6; SUITE=gateway: Gateway API's own suite
	@scripts/conformance $(if $(SUITE),--$(SUITE)) "$(FOCUS)"

bench: bootstrap image kube ## measure against plain veth routing and the bridge plugin; writes target/bench/results.json
	@scripts/bench

soak: bootstrap image kube ## objects come and go while daemons are killed, stopped and hung: make soak MINUTES=20
	@scripts/bench soak --minutes $(or $(MINUTES),20)

churn: bootstrap ## Services and slices change at random for ten minutes and the kernel's maps are compared with a naive model (root): make churn FOR=60 SEED=7
	@CILIUM_CHURN_SECONDS=$(or $(FOR),600) $(if $(SEED),CILIUM_CHURN_SEED=$(SEED)) cargo test --workspace --locked --test kernel after_every_change -- --nocapture

.PHONY: fmt docs bootstrap bootstrap-tests
fmt: ## format all code
	@cargo fmt --all
	@cargo fmt --manifest-path bpf/Cargo.toml

docs: ## write what is generated into the documents, and build the crates' documentation
	@$(XTASK) layers --write
	@CILIUM_WRITE_REFERENCE=1 cargo test --quiet --package cilium --test reference
	@cargo doc --workspace --no-deps --quiet

bootstrap: ## install what building and testing needs
	@$(BOOTSTRAP)

bootstrap-tests:
	@$(BOOTSTRAP) --tests
