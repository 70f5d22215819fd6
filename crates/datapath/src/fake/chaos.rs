// SPDX-License-Identifier: Apache-2.0
//! A kernel that fails on purpose, so that reconcilers stay honest.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::map::raw::RawMap;
use crate::{Kernel, MapSpec, Result};

/// Wraps a kernel so that each operation on a map fails with that probability, without effect. The same seed gives the
/// same failures for the same calls.
#[must_use]
pub fn chaos<K: Kernel>(kernel: K, probability: f64, seed: u64) -> Chaos<K> {
    Chaos { kernel, dice: Arc::new(Dice { probability, rng: Mutex::new(StdRng::seed_from_u64(seed)) }) }
}

/// See [`chaos`].
#[derive(Clone, Debug)]
pub struct Chaos<K> {
    kernel: K,
    dice: Arc<Dice>,
}

#[derive(Debug)]
struct Dice {
    probability: f64,
    rng: Mutex<StdRng>,
}

impl Dice {
    fn roll(&self) -> io::Result<()> {
        if self.rng.lock().random_bool(self.probability.clamp(0.0, 1.0)) {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Ok(())
    }
}

impl<K: Kernel> Kernel for Chaos<K> {
    fn open(&self, spec: MapSpec) -> Result<Arc<dyn RawMap>> {
        Ok(Arc::new(ChaosMap { map: self.kernel.open(spec)?, dice: Arc::clone(&self.dice) }))
    }
}

#[derive(Debug)]
struct ChaosMap {
    map: Arc<dyn RawMap>,
    dice: Arc<Dice>,
}

impl RawMap for ChaosMap {
    fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.dice.roll()?;
        self.map.lookup(key, value)
    }

    fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.dice.roll()?;
        self.map.update(key, value)
    }

    fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.dice.roll()?;
        self.map.delete(key)
    }

    fn entries(&self) -> io::Result<Vec<(Box<[u8]>, Box<[u8]>)>> {
        self.dice.roll()?;
        self.map.entries()
    }

    fn capacity(&self) -> u32 {
        self.map.capacity()
    }

    fn values_per_entry(&self) -> usize {
        self.map.values_per_entry()
    }
}
