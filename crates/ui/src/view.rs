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
