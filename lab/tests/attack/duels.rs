// SPDX-License-Identifier: Apache-2.0
//! The ways that need answers, or time.

pub(crate) mod flood;
pub(crate) mod masquerade;
pub(crate) mod replies;
