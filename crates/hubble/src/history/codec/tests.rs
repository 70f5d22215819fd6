// SPDX-License-Identifier: Apache-2.0
use super::{Decoder, Encoder, Malformed};
use crate::application::Request;
use crate::decode::Record;
use crate::names::{InterfaceName, Names, Peer};
use crate::redact::Redaction;
use crate::store::{Entry, Loser};
use abi::Addr;
use abi::event::{Event, Verdict};
use l7::Exchange;
use model::{Identity, IdentityId, Label, PodName, PolicyKind, Provenance, ProvenanceId, ServiceName, Workload};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9.-]{1,20}"
}

fn addr() -> impl Strategy<Value = Addr> {
    (0_u64..3, any::<u64>()).prop_map(|(hi, lo)| Addr { hi, lo })
}

fn peer(identity: u32) -> impl Strategy<Value = Peer> {
    let label = prop_oneof![
        (text(), text()).prop_map(|(key, value)| Label::k8s(key, value)),
        text().prop_map(Label::reserved),
        (text(), text()).prop_map(|(key, value)| Label::new(model::LabelSource::Unspec, key, format!("{value}=:x"))),
    ];
    let labels = option::of(vec(label, 0..4));
    let names = (option::of((text(), text())), option::of((text(), text())), option::of((text(), text())));
    (labels, names).prop_map(move |(labels, (pod, workload, service))| Peer {
        pod: pod.map(|(namespace, name)| PodName::new(namespace, name)),
        workload: workload.map(|(kind, name)| Arc::new(Workload { kind, name })),
        identity: labels
            .map(|labels| Arc::new(Identity { id: IdentityId(identity), labels: labels.into_iter().collect() })),
        service: service.map(|(namespace, name)| ServiceName {
            cluster: name.starts_with('a').then(|| "red".into()),
            namespace: namespace.into(),
            name: name.into(),
        }),
    })
}

fn rule() -> impl Strategy<Value = Option<Arc<Provenance>>> {
    let kind = prop_oneof![
        Just(PolicyKind::NetworkPolicy),
        Just(PolicyKind::CiliumNetworkPolicy),
        Just(PolicyKind::CiliumClusterwideNetworkPolicy)
    ];
    let rule = (any::<u32>(), kind, text(), vec(text(), 0..3), option::of(text()), any::<u64>());
    option::of(rule.prop_map(|(id, kind, name, labels, log, revision)| {
        let (namespace, rule) = (name.clone(), format!("ingress[{id}]"));
        Arc::new(Provenance { id: ProvenanceId(id), kind, namespace, name, labels, rule, log, revision })
    }))
}

fn names() -> impl Strategy<Value = Names> {
    let interface = prop_oneof![Just(""), Just("lxc1234"), Just("a-name-of-15-by")];
    let labels = option::of(vec(text(), 0..3).prop_map(Arc::from));
    (peer(7), peer(9), rule(), rule(), labels, interface).prop_map(
        |(source, destination, egress, ingress, node_labels, interface)| Names {
            source,
            destination,
            egress,
            ingress,
            node_labels,
            interface: InterfaceName::new(interface),
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let verdict = || {
        (any::<u32>(), any::<u8>(), any::<u8>()).prop_map(|(provenance, outcome, match_type)| Verdict {
            provenance,
            outcome,
            match_type,
            pad: 0,
        })
    };
    let addrs = (addr(), addr(), addr(), addr());
    let parts = (any::<[u8; 6]>(), any::<[u8; 6]>(), any::<[u16; 4]>(), any::<[u32; 3]>(), any::<[u8; 8]>());
    (addrs, parts, verdict(), verdict()).prop_map(|((src, dst, src_xlated, dst_orig), parts, egress, ingress)| {
        let (src_mac, dst_mac, [sport, dport, src_endpoint, dst_endpoint], [ifindex, len, packets], shape) = parts;
        let [kind, point, reason, proto, tcp_flags, icmp_code, reply, direction] = shape;
        Event {
            time: 0,
            src,
            dst,
            src_xlated,
            dst_orig,
            sport,
            dport,
            src_mac,
            dst_mac,
            src_identity: 7,
            dst_identity: 9,
            src_endpoint,
            dst_endpoint,
            ifindex,
            len,
            packets,
            egress,
            ingress,
            kind,
            point,
            reason,
            proto,
            tcp_flags,
            icmp_code,
            reply,
            direction,
        }
    })
}

fn request() -> impl Strategy<Value = Arc<Request>> {
    (text(), vec((text(), text()), 0..3), any::<u16>(), any::<u64>()).prop_map(|(url, headers, status, latency)| {
        let exchange = Exchange { url, headers, status, latency, ..Exchange::default() };
        Arc::new(Request::new(exchange, &Redaction::default()))
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        9 => (any::<i64>(), event(), names(), option::of(request())).prop_map(|(time, event, names, request)| {
            Entry::Event(Record { time, event, names, request })
        }),
        1 => (any::<i64>(), 0..1_u64 << 63, any::<bool>()).prop_map(|(time, count, proxy)| {
            Entry::Lost { time, count, by: if proxy { Loser::Proxy } else { Loser::Kernel } }
        }),
    ]
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let (mut encoder, mut lines) = (Encoder::default(), Vec::new());
    entries.iter().for_each(|entry| encoder.encode(entry, &mut lines));
    lines
}

fn decode(mut lines: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut decoder = Decoder::default();
    let mut entries = Vec::new();
    while let Some(entry) = decoder.next(&mut lines)? {
        entries.push(entry);
    }
    Ok(entries)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn entries_are_read_as_they_were_written(some in vec(entry(), 1..8), again in vec(0_usize..8, 0..16)) {
        // Some come again, as they do: by what they share with others.
        let repeated = again.iter().filter_map(|at| some.get(*at)).cloned();
        let entries: Vec<_> = some.iter().cloned().chain(repeated).collect();
        prop_assert_eq!(decode(&encode(&entries)).unwrap(), entries);
    }

    #[test]
    fn damaged_lines_are_an_error_or_other_entries_and_no_more(some in vec(entry(), 1..4), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut lines = encode(&some);
        let at = at.index(lines.len());
        lines[at] = to;
        if let Ok(entries) = decode(&lines) {
            prop_assert!(entries.len() <= lines.len());
        }
    }
}

#[test]
fn an_event_like_those_before_takes_some_ten_bytes() {
    let record = |n: u16| {
        let event = Event { sport: (40_000 + n).to_be(), ..crate::fixture::allowed_syn() };
        let record =
            Record { time: 1_700_000_000_000_000_000 + i64::from(n) * 50_000, ..crate::fixture::record(event) };
        Entry::Event(record)
    };
    let (mut encoder, mut lines) = (Encoder::default(), Vec::new());
    let first = record(0);
    encoder.encode(&first, &mut lines);
    let Entry::Event(kept) = first else { unreachable!() };
    let defined = lines.len();
    for n in 1..=100 {
        let Entry::Event(next) = record(n) else { unreachable!() };
        encoder.encode(&Entry::Event(Record { names: kept.names.clone(), ..next }), &mut lines);
    }
    assert!((lines.len() - defined) / 100 <= 12, "{} bytes each", (lines.len() - defined) / 100);
}
