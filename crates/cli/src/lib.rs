// SPDX-License-Identifier: Apache-2.0
//! The operator's commands: cilium, cilium-dbg and hubble.
