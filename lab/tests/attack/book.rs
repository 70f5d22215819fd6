// SPDX-License-Identifier: Apache-2.0
//! What is fired: shots, each with a number that its frames carry in their payload, so that what arrives anywhere names its shot.

use std::collections::BTreeSet;

use crate::scene::{Party, Scene};

/// Begins a mark; nothing else on the wire has these octets.
const MAGIC: [u8; 8] = *b"\xa7mk!lab\xa7";

/// The payload of a shot's frames: sixteen octets, so that fragments can begin behind it.
pub(crate) type Mark = [u8; 16];

/// Who fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gun {
    Attacker,
    Stranger,
    Friend,
    Near,
    Far,
}

impl Gun {
    pub(crate) const ALL: [Self; 5] = [Self::Attacker, Self::Stranger, Self::Friend, Self::Near, Self::Far];

    /// Whose it is.
    pub(crate) fn of(self, scene: &Scene) -> &Party {
        match self {
            Self::Attacker => &scene.attacker,
            Self::Stranger => &scene.stranger,
            Self::Friend => &scene.friend,
            Self::Near => &scene.near,
            Self::Far => &scene.far,
        }
    }
}

/// Frames that belong together.
#[derive(Debug)]
pub(crate) struct Shot {
    pub(crate) way: &'static str,
    pub(crate) what: String,
    pub(crate) gun: Gun,
    pub(crate) frames: Vec<Vec<u8>>,
    /// The one place that it may reach, and does: nothing is shown by what arrives nowhere if nothing arrives anywhere.
    pub(crate) reaches: Option<&'static str>,
}

/// All shots; the number of each is its place.
#[derive(Debug, Default)]
pub(crate) struct Book {
    way: &'static str,
    shots: Vec<Shot>,
}

impl Book {
    /// What follows belongs to this way.
    pub(crate) fn way(&mut self, name: &'static str) {
        self.way = name;
    }

    /// A shot that is to arrive nowhere; its frames are made of its mark.
    pub(crate) fn forbidden(&mut self, gun: Gun, what: impl Into<String>, build: impl FnOnce(Mark) -> Vec<Vec<u8>>) {
        self.shot(gun, what.into(), None, build);
    }

    /// A shot that arrives at one place, and at no other.
    pub(crate) fn allowed(
        &mut self,
        gun: Gun,
        what: impl Into<String>,
        at: &'static str,
        build: impl FnOnce(Mark) -> Vec<Vec<u8>>,
    ) {
        self.shot(gun, what.into(), Some(at), build);
    }

    /// A mark for frames that somebody makes later, and that are to arrive nowhere.
    pub(crate) fn mark(&mut self, gun: Gun, what: impl Into<String>) -> Mark {
        let mut mark = Mark::default();
        self.shot(gun, what.into(), None, |given| {
            mark = given;
            Vec::new()
        });
        mark
    }

    fn shot(
        &mut self,
        gun: Gun,
        what: String,
        reaches: Option<&'static str>,
        build: impl FnOnce(Mark) -> Vec<Vec<u8>>,
    ) {
        let number = u32::try_from(self.shots.len()).unwrap();
        let mut mark = Mark::default();
        mark[..8].copy_from_slice(&MAGIC);
        mark[8..12].copy_from_slice(&number.to_be_bytes());
        self.shots.push(Shot { way: self.way, what, gun, frames: build(mark), reaches });
    }

    pub(crate) fn of(&self, gun: Gun) -> impl Iterator<Item = &Shot> {
        self.shots.iter().filter(move |shot| shot.gun == gun)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Shot> {
        self.shots.get(usize::try_from(number).ok()?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Shot)> {
        (0..).zip(&self.shots)
    }

    pub(crate) fn ways(&self) -> BTreeSet<&'static str> {
        self.shots.iter().map(|shot| shot.way).collect()
    }
}

/// The number of the shot whose mark is somewhere in a frame.
pub(crate) fn number(frame: &[u8]) -> Option<u32> {
    let mut rest = frame;
    while let Some(at) = rest.iter().position(|byte| *byte == MAGIC[0]) {
        rest = &rest[at..];
        if rest.starts_with(&MAGIC) {
            return rest.get(8..12)?.try_into().ok().map(u32::from_be_bytes);
        }
        rest = &rest[1..];
    }
    None
}
