// SPDX-License-Identifier: Apache-2.0
//! Events of several rings in one order. Nothing is held to wait for what may still come: at most one event of each ring is.

use abi::event::Event;

/// Where events come from, those of one ring in their order.
pub(super) trait Source {
    /// Takes the next event, if there is one.
    fn next(&mut self) -> Option<Event>;
}

/// Several sources.
#[derive(Debug)]
pub(super) struct Merge<S> {
    lanes: Vec<Lane<S>>,
}

#[derive(Debug)]
struct Lane<S> {
    source: S,
    /// Taken, and not handed over yet.
    head: Option<Event>,
    /// There was nothing when it was looked at.
    is_dry: bool,
}

impl<S: Source> Lane<S> {
    /// Looks, unless that is known, what comes next.
    fn look(&mut self) {
        if self.head.is_none() && !self.is_dry {
            self.head = self.source.next();
            self.is_dry = self.head.is_none();
        }
    }
}

impl<S: Source> Merge<S> {
    pub(super) fn new(sources: Vec<S>) -> Self {
        Self { lanes: sources.into_iter().map(|source| Lane { source, head: None, is_dry: false }).collect() }
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &S> {
        self.lanes.iter().map(|lane| &lane.source)
    }

    /// Hands over the events that are there, at most so many, in the order of time. Returns how many there were.
    ///
    /// `now` is no later than the call. What was told after it is left for the next call, since something earlier may have come into a
    /// ring that had been looked at already; but where there is nothing else, that is handed over, too.
    pub(super) fn drain(&mut self, now: u64, most: usize, mut take: impl FnMut(&Event)) -> usize {
        self.lanes.iter_mut().for_each(|lane| lane.is_dry = false);
        let mut count = 0;
        while count < most
            && let Some(earliest) = self.earliest()
            && (count == 0 || earliest.head.is_some_and(|event| event.time <= now))
            && let Some(event) = earliest.head.take()
        {
            take(&event);
            count += 1;
        }
        count
    }

    fn earliest(&mut self) -> Option<&mut Lane<S>> {
        self.lanes.iter_mut().for_each(Lane::look);
        let told = self.lanes.iter_mut().filter_map(|lane| Some((lane.head.as_ref()?.time, lane)));
        told.min_by_key(|(time, _)| *time).map(|(_, lane)| lane)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const NOW: u64 = 100;
    const ALL: usize = usize::MAX;

    impl Source for VecDeque<Event> {
        fn next(&mut self) -> Option<Event> {
            self.pop_front()
        }
    }

    fn ring(times: &[u64]) -> VecDeque<Event> {
        times.iter().map(|time| Event { time: *time, ..Event::default() }).collect()
    }

    fn drain<S: Source>(merge: &mut Merge<S>, now: u64, most: usize) -> Vec<u64> {
        let mut times = Vec::new();
        let count = merge.drain(now, most, |event| times.push(event.time));
        assert_eq!(count, times.len());
        times
    }

    #[test]
    fn events_of_all_rings_are_in_the_order_of_time() {
        let mut merge = Merge::new(vec![ring(&[2, 3, 9]), ring(&[]), ring(&[1, 4, 8, 10])]);
        assert_eq!(drain(&mut merge, NOW, ALL), [1, 2, 3, 4, 8, 9, 10]);
        assert_eq!(drain(&mut merge, NOW, ALL), []);
    }

    #[test]
    fn a_round_ends_in_the_middle_and_the_next_goes_on() {
        let mut merge = Merge::new(vec![ring(&[1, 4]), ring(&[2, 3, 5])]);
        assert_eq!(drain(&mut merge, NOW, 2), [1, 2]);
        assert_eq!(drain(&mut merge, NOW, 2), [3, 4]);
        assert_eq!(drain(&mut merge, NOW, 2), [5]);
    }

    #[test]
    fn what_comes_late_is_shown_although_something_later_was() {
        let mut merge = Merge::new(vec![ring(&[]), ring(&[5])]);
        assert_eq!(drain(&mut merge, NOW, ALL), [5]);
        merge.lanes[0].source = ring(&[4]);
        merge.lanes[1].source = ring(&[6]);
        assert_eq!(drain(&mut merge, NOW, ALL), [4, 6]);
    }

    /// A ring in which something is told while another one is read.
    struct Meanwhile(VecDeque<Option<Event>>);

    impl Source for Meanwhile {
        fn next(&mut self) -> Option<Event> {
            self.0.pop_front().flatten()
        }
    }

    #[test]
    fn what_is_told_meanwhile_waits_for_what_was_told_before_it() {
        let told = |times: &[u64]| times.iter().map(|time| Some(Event { time: *time, ..Event::default() })).collect();
        let mut first: VecDeque<_> = told(&[101]);
        first.push_front(None);
        let mut merge = Merge::new(vec![Meanwhile(first), Meanwhile(told(&[99, 102]))]);
        assert_eq!(drain(&mut merge, NOW, ALL), [99], "101 came when its ring had been looked at");
        assert_eq!(drain(&mut merge, NOW + 100, ALL), [101, 102]);
    }

    #[test]
    fn a_clock_that_is_behind_holds_no_event() {
        let mut merge = Merge::new(vec![ring(&[7]), ring(&[8])]);
        assert_eq!(drain(&mut merge, 0, ALL), [7]);
        assert_eq!(drain(&mut merge, 0, ALL), [8]);
    }
}
