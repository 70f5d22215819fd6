// SPDX-License-Identifier: Apache-2.0
//! Endpoint ids: numbers from 1 to 65535, unique on the node and chosen at random, so that the id of a recently removed
//! endpoint is not reused at once.

use model::EndpointId;
use rand::Rng;
use std::collections::BTreeSet;

/// A free id, or `None` when all are taken.
pub(crate) fn allocate(taken: &BTreeSet<EndpointId>, rng: &mut impl Rng) -> Option<EndpointId> {
    let start = rng.random_range(1..=u16::MAX);
    (start..=u16::MAX).chain(1..start).map(EndpointId).find(|id| !taken.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    proptest! {
        #[test]
        fn an_id_is_never_zero_and_never_taken(taken in proptest::collection::btree_set(1..=u16::MAX, 0..2000), seed: u64) {
            let taken: BTreeSet<_> = taken.into_iter().map(EndpointId).collect();
            let id = allocate(&taken, &mut rand::rngs::StdRng::seed_from_u64(seed)).unwrap();
            prop_assert!(id.0 != 0 && !taken.contains(&id));
        }

        #[test]
        fn the_last_free_id_is_found(free in 1..=u16::MAX, seed: u64) {
            let taken: BTreeSet<_> = (1..=u16::MAX).filter(|id| *id != free).map(EndpointId).collect();
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            prop_assert_eq!(allocate(&taken, &mut rng), Some(EndpointId(free)));
        }
    }

    #[test]
    fn none_is_free_when_all_are_taken() {
        let taken = (1..=u16::MAX).map(EndpointId).collect();
        assert_eq!(allocate(&taken, &mut rand::rng()), None);
    }
}
