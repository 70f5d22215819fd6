// SPDX-License-Identifier: Apache-2.0
//! What a program did with a packet. A test names everything that must have happened; anything else fails it.

use abi::DropReason;
use abi::event::{Event, kind};

use crate::packet::Packet;

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// A verdict and all effects outside of the flow table.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) verdict: i32,
    pub(crate) frame: Vec<u8>,
    /// Counters that moved: (reason, direction) and by how many packets.
    pub(crate) counters: Vec<((u8, u8), u64)>,
    pub(crate) events: Vec<Event>,
}

impl Run {
    /// Dropped for that reason, once counted and once told. Returns the event.
    #[track_caller]
    pub(crate) fn dropped(&self, reason: DropReason) -> Event {
        let found: Vec<_> = self.events.iter().map(|event| DropReason::from_code(event.reason)).collect();
        assert_eq!(self.verdict, TC_ACT_SHOT, "not dropped: {self:?}");
        assert_eq!(found, [Some(reason)], "{self:?}");
        let [event] = self.events[..] else { panic!("{self:?}") };
        assert_eq!(event.kind, kind::DROP, "{self:?}");
        assert_eq!(self.counters, [((reason as u8, event.direction), 1)], "{self:?}");
        event
    }

    /// Sent on by the program itself.
    #[track_caller]
    pub(crate) fn redirected(&self) -> &Self {
        self.forwarded(TC_ACT_REDIRECT)
    }

    /// Left to the host's stack (or, on the way into a pod, let through).
    #[track_caller]
    pub(crate) fn passed(&self) -> &Self {
        self.forwarded(TC_ACT_OK)
    }

    #[track_caller]
    fn forwarded(&self, verdict: i32) -> &Self {
        let drops: Vec<_> = self.events.iter().filter(|event| event.kind == kind::DROP).collect();
        let reasons: Vec<_> = drops.iter().map(|event| DropReason::from_code(event.reason)).collect();
        assert_eq!((self.verdict, reasons), (verdict, Vec::new()), "{self:?}");
        let counted: Vec<_> = self.counters.iter().map(|((reason, _), packets)| (*reason, *packets)).collect();
        assert_eq!(counted, [(0, 1)], "{self:?}");
        self
    }

    /// For us, and nothing to send on: counted, and not told.
    #[track_caller]
    pub(crate) fn taken(&self) -> &Self {
        assert_eq!(self.verdict, TC_ACT_SHOT, "{self:?}");
        let counted: Vec<_> = self.counters.iter().map(|((reason, _), packets)| (*reason, *packets)).collect();
        assert_eq!((counted, self.events.len()), (vec![(0, 1)], 0), "{self:?}");
        self
    }

    /// None of the datapath's business: neither counted nor told.
    #[track_caller]
    pub(crate) fn ignored(&self) -> &Self {
        assert_eq!(self.verdict, TC_ACT_UNSPEC, "{self:?}");
        assert!(self.events.is_empty() && self.counters.is_empty(), "{self:?}");
        self
    }

    /// The packet came out like that, byte for byte.
    #[track_caller]
    pub(crate) fn packet(&self, expected: &Packet) -> &Self {
        self.frame(&expected.bytes())
    }

    #[track_caller]
    pub(crate) fn frame(&self, expected: &[u8]) -> &Self {
        assert_eq!(hex(&self.frame), hex(expected));
        self
    }

    /// Told once, as the first packet of a flow. Returns the event.
    #[track_caller]
    pub(crate) fn told(&self) -> Event {
        let [event] = self.events[..] else { panic!("not one event: {self:?}") };
        assert_eq!(event.kind, kind::TRACE);
        event
    }

    /// Not told.
    #[track_caller]
    pub(crate) fn untold(&self) -> &Self {
        assert!(self.events.is_empty(), "{self:?}");
        self
    }
}

/// Readable in a failed comparison: rows of sixteen bytes.
fn hex(bytes: &[u8]) -> Vec<String> {
    bytes.chunks(16).map(|row| row.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")).collect()
}
