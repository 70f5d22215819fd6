// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! One file per hook.

mod bind;
mod early;
mod egress;
mod netdev;
mod overlay;
mod pod;
mod sock;
mod sock_memory;
