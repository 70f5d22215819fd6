// SPDX-License-Identifier: Apache-2.0
//! Announces addresses that this node has taken over: neighbours that know them would keep sending to the previous
//! node. What this node holds no longer is not announced: an agent that was frozen meanwhile would call them back.

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
                due.retain(|key, due| tell_one(key, due, (&rows, &answered), &*wire));
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
fn tell_one(
    key: &AnnouncementKey,
    due: &mut Due,
    (rows, answered): (&Reader<Announcement>, &StatusReader<Announcement>),
    wire: &dyn Wire,
) -> bool {
    let now = Instant::now();
    if now < due.at {
        return true;
    }
    let (address, ifindex) = *key;
    let is_held = rows.snapshot().get(key).is_some_and(|row| wire.since_boot() < row.until);
    if !is_held || answered.get(key).is_none_or(|status| status.state != statedb::State::Done) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::reconcile::Target;
    use datapath::fake;
    use model::ServiceName;
    use statedb::Tasks;
    use tokio_util::sync::CancellationToken;

    const HELD: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_frozen_agent_that_wakes_up_after_its_time_announces_nothing() {
        let (wire, tasks) = (fake::Wire::default(), Tasks::new(CancellationToken::new()));
        let (kernel, links): (Arc<dyn datapath::Kernel>, Arc<dyn Wire>) =
            (Arc::new(fake::Kernel::new()), Arc::new(wire.clone()));
        let (mut writer, rows) = statedb::table("test");
        writer.mark_initialized();
        let target = Target::new(&kernel, Arc::clone(&links)).unwrap();
        let answered = statedb::reconcile(&tasks, "test", rows.clone(), target);
        let told = tokio::spawn(tell(rows, answered, Arc::clone(&links)));
        let row = Announcement {
            address: [192, 0, 2, 240].into(),
            ifindex: 2,
            device: "eth0".to_owned(),
            mac: model::Mac([2; 6]),
            service: ServiceName::new("shop", "web"),
            until: links.since_boot() + HELD,
        };
        writer.insert(row.clone());
        writer.commit();
        tokio::time::sleep(SPACING / 2).await;
        assert_eq!(wire.announced().len(), 1);
        // All of its timers are due at once, before anything else has taken note of the time.
        tokio::time::advance(2 * HELD).await;
        tokio::time::sleep(SPACING).await;
        assert_eq!(wire.announced().len(), 0);
        writer.insert(Announcement { until: links.since_boot() + HELD, ..row });
        writer.commit();
        tokio::time::sleep(HELD / 2).await;
        assert_eq!(wire.announced().len(), 2, "it holds it again, and has not said so three times");
        told.abort();
        tasks.token().cancel();
        tasks.run_until_failure().await.unwrap();
    }
}
