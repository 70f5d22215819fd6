// SPDX-License-Identifier: Apache-2.0
//! The cluster daemon: configuration and wiring, nothing else.
