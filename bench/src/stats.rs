// SPDX-License-Identifier: Apache-2.0
//! Medians, percentiles, and confidence intervals of medians.

/// The percentile of this share (nearest rank); NaN without values.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The median: the middle value, or the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 { at(half) } else { (at(half.wrapping_sub(1)) + at(half)) / 2.0 }
}

/// The 95 % confidence interval of the median, by resampling. The same values give the same interval.
pub(crate) fn interval(values: &[f64]) -> (f64, f64) {
    const SAMPLES: usize = 2000;
    if values.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let medians: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let sample: Vec<f64> =
                values.iter().map(|_| values.get(next() % values.len()).copied().unwrap_or(f64::NAN)).collect();
            median(&sample)
        })
        .collect();
    (percentile(&medians, 0.025), percentile(&medians, 0.975))
}

#[cfg(test)]
mod tests {
    use super::{interval, median, percentile};

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile(&values, 0.99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile(&values, 1.0) - 100.0).abs() < f64::EPSILON);
        assert!((percentile(&[7.0], 0.5) - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_interval_holds_the_median_and_is_narrow_for_equal_values() {
        let (low, high) = interval(&[1.0, 1.1, 0.9, 1.05, 0.95]);
        assert!((0.9..=1.0).contains(&low) && (1.0..=1.1).contains(&high));
        assert_eq!(interval(&[2.0, 2.0, 2.0]), (2.0, 2.0));
    }
}
