// SPDX-License-Identifier: Apache-2.0
//! Copies of a body for mirrors. Nobody waits for a mirror: one that takes its copy more slowly than the backend takes the body loses it, and
//! what waits for all mirrors together has a size.

use super::body::BodyError;
use bytes::Bytes;
use http_body::Frame;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::task::{Context, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// A part of a body, or why there is no more.
type Part = Result<Frame<Bytes>, BodyError>;

/// Frames that a mirror may be behind.
const BEHIND: usize = 16;
/// Bytes that may wait for all mirrors.
const ROOM: usize = 32 << 20;

/// Room for what waits for mirrors. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self::of(ROOM)
    }
}

impl Room {
    fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}

/// A part that waits, with the room that it takes.
#[derive(Debug)]
struct Waiting {
    part: Part,
    _room: OwnedSemaphorePermit,
}

/// The copies of a body that is under way.
#[derive(Debug, Default)]
pub(super) struct Copies(Vec<Given>);

/// What a mirror is given, as long as it keeps up.
#[derive(Debug)]
struct Given {
    parts: mpsc::Sender<Waiting>,
    room: Room,
    complete: Arc<AtomicBool>,
}

/// One of them. It ends well only if it is all of a body that was read to its end.
#[derive(Debug)]
pub(crate) struct Copy {
    parts: mpsc::Receiver<Waiting>,
    complete: Arc<AtomicBool>,
}

impl Copies {
    pub(super) fn another(&mut self, room: &Room) -> Copy {
        let (sender, parts) = mpsc::channel(BEHIND);
        let copy = Copy { parts, complete: Arc::default() };
        self.0.push(Given { parts: sender, room: room.clone(), complete: Arc::clone(&copy.complete) });
        copy
    }

    /// Gives a part to those who have kept up.
    pub(super) fn give(&mut self, part: &Part) {
        if self.0.is_empty() {
            return;
        }
        let (part, size) = detached(part);
        let again = || match &part {
            Ok(frame) => duplicate(frame),
            Err(error) => Err(*error),
        };
        self.0.retain(|copy| {
            copy.room.take(size).is_some_and(|_room| copy.parts.try_send(Waiting { part: again(), _room }).is_ok())
        });
    }

    /// There was no more.
    pub(super) fn end(&mut self) {
        for copy in self.0.drain(..) {
            copy.complete.store(true, Release);
        }
    }
}

/// The part without what else is in the memory that it was read into, and its size.
fn detached(part: &Part) -> (Part, usize) {
    match part {
        Ok(frame) => match frame.data_ref() {
            Some(data) => (Ok(Frame::data(Bytes::copy_from_slice(data))), data.len()),
            None => (duplicate(frame), 0),
        },
        Err(error) => (Err(*error), 0),
    }
}

fn duplicate(frame: &Frame<Bytes>) -> Part {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Ok(Frame::data(data.clone())),
        (None, Some(trailers)) => Ok(Frame::trailers(trailers.clone())),
        (None, None) => Err(BodyError::Broken),
    }
}

impl Copy {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Part>> {
        match ready!(self.parts.poll_recv(cx)) {
            Some(Waiting { part, .. }) => Poll::Ready(Some(part)),
            None if self.complete.load(Acquire) => Poll::Ready(None),
            None => Poll::Ready(Some(Err(BodyError::Slow))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn data(size: usize) -> Part {
        Ok(Frame::data(Bytes::from(vec![0; size])))
    }

    async fn next(copy: &mut Copy) -> Option<Result<usize, BodyError>> {
        let part = poll_fn(|cx| copy.poll_frame(cx)).await;
        part.map(|part| part.map(|frame| frame.data_ref().map_or(0, Bytes::len)))
    }

    #[tokio::test]
    async fn who_keeps_up_gets_all_of_it_and_a_good_end() {
        let (mut copies, room) = (Copies::default(), Room::of(10));
        let mut copy = copies.another(&room);
        for _ in 0..100 {
            copies.give(&data(10));
            assert_eq!(next(&mut copy).await, Some(Ok(10)));
        }
        copies.end();
        assert_eq!(next(&mut copy).await, None);
    }

    #[tokio::test]
    async fn who_is_too_far_behind_loses_its_copy_and_the_room_it_had() {
        let (mut copies, room) = (Copies::default(), Room::of(100));
        let mut copy = copies.another(&room);
        for _ in 0..=BEHIND {
            copies.give(&data(1));
        }
        copies.end();
        for _ in 0..BEHIND {
            assert_eq!(room.0.available_permits(), 100 - copy.parts.len());
            assert_eq!(next(&mut copy).await, Some(Ok(1)));
        }
        assert_eq!(next(&mut copy).await, Some(Err(BodyError::Slow)), "the body was complete, and its copy is not");
        assert_eq!(room.0.available_permits(), 100);
    }

    #[tokio::test]
    async fn all_mirrors_have_their_room_together() {
        let room = Room::of(100);
        let mut bodies = [Copies::default(), Copies::default()];
        let [mut first, mut second] = bodies.each_mut().map(|copies| copies.another(&room));
        bodies[0].give(&data(60));
        bodies[1].give(&data(60));
        assert_eq!(next(&mut second).await, Some(Err(BodyError::Slow)));
        assert_eq!(next(&mut first).await, Some(Ok(60)));
        let mut third = bodies[1].another(&room);
        bodies[1].give(&data(60));
        assert_eq!(next(&mut third).await, Some(Ok(60)));
        drop(bodies);
        assert_eq!(next(&mut first).await, Some(Err(BodyError::Slow)), "it was not read to its end");
        assert_eq!(room.0.available_permits(), 100);
    }

    #[tokio::test]
    async fn a_fault_of_the_body_is_one_of_its_copies() {
        let mut copies = Copies::default();
        let mut copy = copies.another(&Room::of(0));
        copies.give(&Err(BodyError::Broken));
        assert_eq!(next(&mut copy).await, Some(Err(BodyError::Broken)));
    }

    #[test]
    fn what_waits_takes_no_more_memory_than_it_says() {
        let read = Bytes::from(vec![0; 1 << 20]);
        let (part, size) = detached(&Ok(Frame::data(read.slice(..1))));
        assert!(read.is_unique());
        assert_eq!((size, part.unwrap().into_data().unwrap().len()), (1, 1));
    }
}
