// SPDX-License-Identifier: Apache-2.0
//! Flows: decoding, the observer API and its client.
