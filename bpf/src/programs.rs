// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! One file per hook, and the two ways a flow is decided: leaving a pod, or arriving for one.

mod arriving;
mod commit;
mod netdev;
mod overlay;
mod pod;
mod sock;
