// SPDX-License-Identifier: Apache-2.0
//! Announces addresses that this node has taken over: neighbours that know them would keep sending to the previous
//! node.

use crate::announcement::{Announcement, AnnouncementKey};
use datapath::Wire;
use datapath::netlink::Mac;
use statedb::{Change, Reader, StatusReader};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How many times each address is announced: frames get lost, and a switch may only just have begun to forward.
const TIMES: u32 = 3;
/// The time between.
const SPACING: Duration = Duration::from_secs(1);
/// How soon to check again for addresses not answered yet.
const NOT_YET: Duration = Duration::from_millis(50);

/// Outstanding announcements of an address.
struct Due {
    mac: model::Mac,
    times: u32,
    at: Instant,
}

/// Runs until dropped.
pub(crate) async fn tell(rows: Reader<Announcement>, answered: StatusReader<Announcement>, wire: Arc<dyn Wire>) {
    let mut changes = rows.subscribe();
    let mut known: BTreeMap<AnnouncementKey, model::Mac> = BTreeMap::new();
    let mut due: BTreeMap<AnnouncementKey, Due> = BTreeMap::new();
    loop {
        let next = due.values().map(|due| due.at).min();
        tokio::select! {
            batch = changes.next() => for change in batch.changes {
                note(change, &mut known, &mut due);
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                due.retain(|key, due| tell_one(key, due, &answered, &*wire));
            }
        }
    }
}

fn note(
    change: Change<Announcement>,
    known: &mut BTreeMap<AnnouncementKey, model::Mac>,
    due: &mut BTreeMap<AnnouncementKey, Due>,
) {
    match change {
        Change::Upsert(row) => {
            let key = (row.address, row.ifindex);
            // A renewal is no news.
            if known.insert(key, row.mac) != Some(row.mac) {
                due.insert(key, Due { mac: row.mac, times: TIMES, at: Instant::now() });
            }
        }
        Change::Delete(row) => {
            known.remove(&(row.address, row.ifindex));
            due.remove(&(row.address, row.ifindex));
        }
    }
}

/// Announces an address if it is due. Returns whether there is more to do.
fn tell_one(key: &AnnouncementKey, due: &mut Due, answered: &StatusReader<Announcement>, wire: &dyn Wire) -> bool {
    let now = Instant::now();
    if now < due.at {
        return true;
    }
    let (address, ifindex) = *key;
    if answered.get(key).is_none_or(|status| status.state != statedb::State::Done) {
        due.at = now + NOT_YET;
        return true;
    }
    if let Err(error) = wire.announce(ifindex, Mac(due.mac.0), address) {
        tracing::warn!(%address, ifindex, error = statedb::with_causes(&error), "cannot announce the address");
    }
    due.times -= 1;
    due.at = now + SPACING;
    due.times > 0
}
