// SPDX-License-Identifier: Apache-2.0
//! Identities, selectors, ipcache, resolved policy and policy maps.
