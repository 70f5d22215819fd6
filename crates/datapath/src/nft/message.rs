// SPDX-License-Identifier: Apache-2.0
//! Messages of nf_tables: netlink headers and attributes in the host's byte order, values of nf_tables in the network's.

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFPROTO_INET`: IPv4 and IPv6.
const FAMILY: u8 = 1;
const NESTED: u16 = 0x8000;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
const HEADER: usize = 16;

/// Where a chain is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    /// Before a packet that arrives is routed.
    Prerouting = 0,
    /// When this host sends a packet.
    Output = 3,
}

/// A chain that filters before connections are tracked.
pub(super) struct Chain<'a> {
    pub(super) table: &'a str,
    pub(super) name: &'a str,
    pub(super) hook: Hook,
}

/// A step of a rule; values pass through one register.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expression<'a> {
    /// The transport protocol.
    LoadProtocol,
    /// Two bytes of the transport header.
    LoadDestinationPort,
    /// Go on if the value is this.
    Equals(&'a [u8]),
    /// Do not track the packet.
    NoTrack,
    /// The state of its connection, by which somebody has connections tracked.
    #[cfg(test)]
    LoadConnectionState,
}

/// A transaction.
pub(super) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    /// Begins with removing a table, whether it is there or not.
    pub(super) fn without(table: &str) -> Self {
        let mut batch = Self { bytes: Vec::new(), sequence: 0 };
        batch.message(BATCH_BEGIN, 0, 0, SUBSYSTEM, &[]);
        batch.table(table);
        batch.message(DELETE_TABLE, ACK, FAMILY, 0, &attribute(1, &text(table)));
        batch
    }

    pub(super) fn table(&mut self, name: &str) {
        self.message(NEW_TABLE, CREATE | ACK, FAMILY, 0, &attribute(1, &text(name)));
    }

    pub(super) fn chain(&mut self, chain: &Chain<'_>) {
        /// `NF_IP_PRI_RAW`: before `NF_IP_PRI_CONNTRACK`.
        const RAW: i32 = -300;
        let hook = [attribute(1, &(chain.hook as u32).to_be_bytes()), attribute(2, &RAW.to_be_bytes())].concat();
        let body = [
            attribute(1, &text(chain.table)),
            attribute(3, &text(chain.name)),
            attribute(4 | NESTED, &hook),
            attribute(7, &text("filter")),
        ];
        self.message(NEW_CHAIN, CREATE | ACK, FAMILY, 0, &body.concat());
    }

    pub(super) fn rule(&mut self, table: &str, chain: &str, expressions: &[Expression<'_>]) {
        let list: Vec<u8> = expressions.iter().flat_map(|e| attribute(1 | NESTED, &e.encode())).collect();
        let body = [attribute(1, &text(table)), attribute(2, &text(chain)), attribute(4 | NESTED, &list)];
        self.message(NEW_RULE, CREATE | APPEND | ACK, FAMILY, 0, &body.concat());
    }

    /// The number of the last message, whose answer comes when all is done.
    pub(super) const fn last(&self) -> u32 {
        self.sequence - 1
    }

    /// All of it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.message(BATCH_END, 0, 0, SUBSYSTEM, &[]);
        self.bytes
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        // `nlmsghdr` and `nfgenmsg`; attributes are padded, so that messages are aligned.
        let length = HEADER + 4 + body.len();
        self.bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(body);
        self.sequence += 1;
    }
}

impl Expression<'_> {
    fn encode(self) -> Vec<u8> {
        /// `NFT_REG_1`.
        const REGISTER: u32 = 1;
        let number = |kind, value: u32| attribute(kind, &value.to_be_bytes());
        let (name, data) = match self {
            // `NFT_META_L4PROTO`.
            Self::LoadProtocol => ("meta", [number(1, REGISTER), number(2, 16)].concat()),
            // Of the transport header (2), from offset 2, two bytes.
            Self::LoadDestinationPort => {
                ("payload", [number(1, REGISTER), number(2, 2), number(3, 2), number(4, 2)].concat())
            }
            // `NFT_CMP_EQ`.
            Self::Equals(value) => {
                let value = attribute(3 | NESTED, &attribute(1, value));
                ("cmp", [number(1, REGISTER), number(2, 0), value].concat())
            }
            Self::NoTrack => ("notrack", Vec::new()),
            // `NFT_CT_STATE`.
            #[cfg(test)]
            Self::LoadConnectionState => ("ct", [number(1, REGISTER), number(2, 0)].concat()),
        };
        [attribute(1, &text(name)), attribute(2 | NESTED, &data)].concat()
    }
}

/// The numbers of the messages that are answered, and what the kernel says of each: 0, or minus an error.
pub(super) fn answers(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let mut answers = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize)
        && length >= HEADER
        && let Some((message, rest)) = bytes.split_at_checked(length.next_multiple_of(4).min(bytes.len()))
    {
        let word = |at: usize| message.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
        if let (Some(kind), Some(sequence), Some(code)) = (word(4), word(8), word(HEADER))
            && kind.to_ne_bytes().first_chunk().map(|kind| u16::from_ne_bytes(*kind)) == Some(ERROR)
        {
            answers.push((sequence, code.cast_signed()));
        }
        bytes = rest;
    }
    answers
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_numbered_and_as_long_as_they_say() {
        let mut batch = Batch::without("t");
        batch.chain(&Chain { table: "t", name: "c", hook: Hook::Output });
        batch.rule("t", "c", &[Expression::LoadProtocol, Expression::Equals(&[17]), Expression::NoTrack]);
        assert_eq!(batch.last(), 4);
        let bytes = batch.finish();
        let (mut rest, mut numbers) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(*rest.first_chunk().unwrap()) as usize;
            assert_eq!(length % 4, 0);
            numbers.push(u32::from_ne_bytes(rest[8..12].try_into().unwrap()));
            rest = &rest[length..];
        }
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn attributes_are_padded_but_their_length_is_without() {
        assert_eq!(attribute(7, b"ab"), [&6_u16.to_ne_bytes()[..], &7_u16.to_ne_bytes(), b"ab\0\0"].concat());
        assert_eq!(attribute(1, b"").len(), 4);
    }

    #[test]
    fn every_answer_is_read_and_half_a_message_is_none() {
        let answer = |sequence: u32, code: i32| {
            let mut bytes = 36_u32.to_ne_bytes().to_vec();
            bytes.extend(ERROR.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(sequence.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(code.to_ne_bytes());
            bytes.extend([0; 16]);
            bytes
        };
        let both = [answer(3, 0), answer(4, -2)].concat();
        assert_eq!(answers(&both), [(3, 0), (4, -2)]);
        assert_eq!(answers(&both[..18]), []);
        assert_eq!(answers(&[0; 64]), []);
    }
}
