//! Order statistics over rounds: medians, quartiles, an interval for a median, and when a difference may be named.
//!
//! No distribution is assumed: rounds on a shared machine have outliers on one side only, so means and deviations lie.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// A median with what surrounds it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest value.
    pub min: f64,
    /// The first quartile.
    pub q1: f64,
    /// The median.
    pub median: f64,
    /// The third quartile.
    pub q3: f64,
    /// The largest value.
    pub max: f64,
    /// The lower end of an interval that holds the true median with 95 % or more, where the count of rounds allows it.
    pub low: f64,
    /// The upper end of that interval.
    pub high: f64,
}

impl Spread {
    /// Of at least one finite value; `None` otherwise.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let rank = median_interval_rank(sorted.len());
        Some(Spread {
            min,
            q1: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            q3: quantile(&sorted, 0.75),
            max,
            low: sorted[rank],
            high: sorted[sorted.len() - 1 - rank],
        })
    }
}

/// The median of at least one finite value.
pub fn median(values: &[f64]) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

/// Linear interpolation between the two nearest ranks of a sorted, non-empty slice.
fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let place = quantile * (sorted.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * part
}

/// The largest rank `k` (from 0) for which the interval from the k-th smallest to the k-th largest of `count` values
/// holds the true median with at least 95 %: `1 - 2 * P(Binomial(count, 1/2) <= k) >= 0.95`. With fewer than six
/// values no rank does, and the whole range is taken.
fn median_interval_rank(count: usize) -> usize {
    let mut term = 0.5f64.powi(count as i32);
    let mut tail = term;
    let mut rank = 0;
    for k in 1..=count / 2 {
        term *= (count - k + 1) as f64 / k as f64;
        tail += term;
        if 2.0 * tail > 0.05 {
            break;
        }
        rank = k;
    }
    rank
}

/// Rounds below which no difference is named at all.
pub const ROUNDS_FOR_VERDICT: usize = 6;
/// Differences smaller than this are never named: two runs of the same binary differ by as much through code layout.
pub const SMALLEST_DIFFERENCE: f64 = 0.02;

/// Tables show three digits: an interval that ends at "1.000" does not exclude 1.
const INTERVAL_ROUNDING: f64 = 0.0005;

/// What may be said of a cost relative to nginx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It costs less, beyond the noise of this run.
    Less,
    /// It costs more, beyond the noise of this run.
    More,
    /// The difference is within the noise of this run, or the rounds are too few to tell.
    WithinNoise,
}

impl Verdict {
    /// Of the ratios of `rounds` rounds.
    pub fn of(ratios: &Spread, rounds: usize) -> Verdict {
        if rounds < ROUNDS_FOR_VERDICT || (ratios.median - 1.0).abs() < SMALLEST_DIFFERENCE {
            Verdict::WithinNoise
        } else if ratios.high < 1.0 - INTERVAL_ROUNDING {
            Verdict::Less
        } else if ratios.low > 1.0 + INTERVAL_ROUNDING {
            Verdict::More
        } else {
            Verdict::WithinNoise
        }
    }

    /// One word for a table.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Less => "less",
            Verdict::More => "more",
            Verdict::WithinNoise => "within noise",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quartiles_of_small_sets() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).expect("values");
        assert_eq!((spread.min, spread.q1, spread.median, spread.q3, spread.max), (1.0, 1.75, 2.5, 3.25, 4.0));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(median(&[f64::NAN, 2.0]), Some(2.0));
    }

    #[test]
    fn interval_ranks_are_those_of_the_binomial_table() {
        // Published ranks for a 95 % interval of the median, from 1: n=6: 1, 9: 2, 11: 2, 12: 3, 15: 4, 21: 6.
        for (count, rank_from_one) in [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (21, 6)] {
            assert_eq!(median_interval_rank(count) + 1, rank_from_one, "{count} values");
        }
    }

    #[test]
    fn no_winner_inside_the_noise() {
        let verdict = |ratios: &[f64]| Verdict::of(&Spread::of(ratios).expect("values"), ratios.len());
        assert_eq!(verdict(&[0.7, 0.72, 0.71, 0.69, 0.73, 0.7]), Verdict::Less);
        assert_eq!(verdict(&[1.7, 1.72, 1.71, 1.69, 1.73, 1.7]), Verdict::More);
        assert_eq!(verdict(&[0.7, 0.72, 1.2, 0.9, 1.1, 0.95]), Verdict::WithinNoise);
        assert_eq!(verdict(&[0.99, 0.985, 0.99, 0.98, 0.99, 0.99]), Verdict::WithinNoise);
        assert_eq!(verdict(&[0.5, 0.5, 0.5]), Verdict::WithinNoise, "three rounds are too few");
    }
}
