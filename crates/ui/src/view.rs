// SPDX-License-Identifier: Apache-2.0
//! What one viewer is told, twice a second at most: what has changed since the last time. Nothing waits for a slow viewer: what it is told next
//! is made when it can take it, of what is there then, and flows that are gone by then are counted.

use crate::scene::{Filter, Scene};
use crate::scenes::{Seat, now};
use axum::response::sse::Event as Message;
use futures::Stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

const PACE: Duration = Duration::from_millis(500);
/// The most flows that are told at a time.
const ROWS: usize = 200;
/// The most flows of the past that are told at first.
const FIRST_ROWS: usize = 1_000;
/// Seconds before the last told one that may still change, since nodes tell of flows late.
const LATE: i64 = 10;

/// A viewer, and what it knows.
pub(crate) struct View {
    seat: Seat,
    filter: Filter,
    ticks: Interval,
    told: Option<Told>,
    missed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    generation: u64,
    version: u64,
    row: u64,
    second: i64,
}

impl View {
    pub(crate) fn new(seat: Seat, filter: Filter) -> Self {
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { seat, filter: filter.normal(), ticks, told: None, missed: 0 }
    }

    /// Messages for a browser.
    pub(crate) fn stream(self) -> impl Stream<Item = Result<Message, Infallible>> + Send {
        futures::stream::unfold(self, |mut view| async move {
            view.ticks.tick().await;
            let message = Message::default().data(view.update(now()).to_string());
            Some((Ok(message), view))
        })
    }

    fn update(&mut self, now: i64) -> Value {
        let scene = self.seat.scene.lock();
        let told = self.told.filter(|told| told.generation == scene.generation);
        let (version, row) = (told.map_or(0, |told| told.version), self.told.map_or(0, |told| told.row));
        let (most, gone) = if self.told.is_some() { (ROWS, true) } else { (FIRST_ROWS, false) };
        let chosen = scene.rows.choose(row, &self.filter, most);
        // The past that it has not asked for is not missed.
        self.missed += if gone { chosen.missed } else { 0 };
        let (vertices, edges) = scene.graph.since(version);
        let second = told.map_or(0, |told| told.second - LATE);
        let update = json!({
            "now": now,
            "reset": told.is_none(),
            "problem": scene.link.problem,
            "unavailable": scene.link.unavailable,
            "lost": scene.lost,
            "missed": self.missed,
            "left_out": scene.graph.left_out,
            "vertices": vertices,
            "edges": edges,
            "rates": scene.rates.since(second),
            "flows": chosen.events,
        });
        self.told = Some(Told::now(&scene, now));
        update
    }
}

impl Told {
    fn now(scene: &Scene, now: i64) -> Self {
        let second = now.div_euclid(1000);
        Self { generation: scene.generation, version: scene.version, row: scene.rows.next(), second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::relay::Relay;
    use crate::scenes::Scenes;
    use clap::Parser as _;
    use hubble::proto::flow::{Endpoint, Flow, Verdict};
    use hubble::proto::observer::GetFlowsResponse;
    use hubble::proto::observer::get_flows_response::ResponseTypes;

    fn view(filter: Filter) -> View {
        let scenes = Scenes::new(Relay::new(&Config::parse_from(["hubble-ui", "--server=127.0.0.1:1"])));
        View::new(scenes.look("shop").unwrap(), filter)
    }

    fn add(view: &View, count: usize, verdict: Verdict) {
        let pod =
            |name: &str| Endpoint { namespace: "shop".to_owned(), pod_name: name.to_owned(), ..Endpoint::default() };
        let ends = (Some(pod("web")), Some(pod("db")));
        let flow = Flow { verdict: verdict.into(), source: ends.0, destination: ends.1, ..Flow::default() };
        for _ in 0..count {
            let response_types = Some(ResponseTypes::Flow(flow.clone()));
            view.seat.scene.lock().take(&GetFlowsResponse { response_types, ..GetFlowsResponse::default() }, 1_000_000);
        }
    }

    fn counts(update: &Value) -> (bool, usize, usize, u64) {
        let length = |field: &str| update[field].as_array().unwrap().len();
        (update["reset"].as_bool().unwrap(), length("edges"), length("flows"), update["missed"].as_u64().unwrap())
    }

    #[tokio::test]
    async fn a_viewer_is_told_what_has_changed_and_how_much_it_missed() {
        let mut view = view(Filter::default());
        add(&view, FIRST_ROWS + 500, Verdict::Forwarded);
        assert_eq!(counts(&view.update(1_000_000)), (true, 1, FIRST_ROWS, 0), "the past is not missed");
        assert_eq!(counts(&view.update(1_000_500)), (false, 0, 0, 0), "nothing has changed");
        add(&view, 1, Verdict::Dropped);
        add(&view, ROWS + 99, Verdict::Forwarded);
        let update = view.update(1_001_000);
        assert_eq!(counts(&update), (false, 1, ROWS, 100));
        assert_eq!(update["flows"][0]["class"], "dropped", "told before others");
        view.seat.scene.lock().sweep(i64::MAX / 2);
        add(&view, 1, Verdict::Forwarded);
        assert_eq!(counts(&view.update(1_001_500)), (true, 1, 1, 100), "the graph begins anew, the table goes on");
    }

    #[tokio::test]
    async fn flows_that_a_filter_leaves_out_are_not_missed() {
        let mut view = view(Filter { verdict: "dropped".to_owned(), ..Filter::default() });
        view.update(1_000_000);
        add(&view, ROWS * 3, Verdict::Forwarded);
        add(&view, 2, Verdict::Dropped);
        assert_eq!(counts(&view.update(1_000_500)), (false, 1, 2, 0));
    }
}
