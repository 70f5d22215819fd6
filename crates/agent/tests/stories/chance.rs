// SPDX-License-Identifier: Apache-2.0
//! What stories leave to chance.

/// Numbers by chance, the same ones again for the same seed (xorshift).
#[derive(Debug, Default)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        // From nothing nothing comes.
        Self(seed | (1 << 63))
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    pub(crate) fn yes(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(crate) fn some_of(&mut self, all: &[&'static str]) -> Vec<&'static str> {
        all.iter().copied().filter(|_| self.below(3) == 0).collect()
    }

    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}
