// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Packet counters by reason and direction.

layout! {
    /// What is counted.
    pub struct MetricsKey (4) {
        /// Drop reason code, or 0 for forwarded packets.
        pub reason: u8,
        /// `policy::INGRESS` or `policy::EGRESS`, 0 when unknown.
        pub direction: u8,
        /// Zero.
        pub pad: u16,
    }
}

layout! {
    /// The counters of one processor.
    pub struct MetricsValue (16) {
        /// Packets.
        pub packets: u64,
        /// Bytes, from the network header on.
        pub bytes: u64,
    }
}
