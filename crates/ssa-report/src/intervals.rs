//! Means with their spreads, one below the other on a common axis.
//!
//! Names are above their intervals and not left of them, so that long ones fit on a phone. The
//! axis does not start at 0: means that are compared differ by little.

use serde::Serialize;

use crate::{Axis, Spacing};

/// Height of a row in pixels, with its name.
const ROW: usize = 40;

/// A mean with its spread.
#[derive(Clone, Debug)]
pub struct Interval {
    /// What was measured.
    pub name: String,
    /// The mean.
    pub mean: f64,
    /// What is drawn to both sides of the mean; 0 for a single value.
    pub spread: f64,
    /// The mean and its spread as text.
    pub value: String,
}

/// Means with their spreads. Positions are in percent from the left.
#[derive(Clone, Debug, Serialize)]
pub struct Intervals {
    title: String,
    description: String,
    label: String,
    height: usize,
    ticks: Vec<Tick>,
    rows: Vec<PlacedRow>,
}

#[derive(Clone, Debug, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

#[derive(Clone, Debug, Serialize)]
struct PlacedRow {
    name: String,
    value: String,
    /// In pixels from the top.
    top: usize,
    low: f64,
    mean: f64,
    high: f64,
}

impl Intervals {
    /// Places the intervals from top to bottom. Title and description are for screen readers, the
    /// label names the quantity. Intervals that are not finite are skipped.
    pub fn new(
        title: impl Into<String>,
        description: impl Into<String>,
        label: impl Into<String>,
        intervals: Vec<Interval>,
    ) -> Self {
        let ends = |interval: &Interval| {
            [interval.mean - interval.spread, interval.mean + interval.spread]
        };
        let label = label.into();
        let axis = Axis::spanning(&label, Spacing::Linear, intervals.iter().flat_map(ends));
        let at = |value: f64| (1e4 * axis.position(value)).round() / 100.0;
        let finite = |interval: &Interval| ends(interval).iter().all(|end| end.is_finite());
        let intervals = intervals.into_iter().filter(finite);
        let place = |(index, interval): (usize, Interval)| {
            let [low, high] = ends(&interval).map(at);
            let Interval { name, mean, value, .. } = interval;
            PlacedRow { name, value, top: ROW * index, low, mean: at(mean), high }
        };
        let rows: Vec<PlacedRow> = intervals.enumerate().map(place).collect();
        Self {
            title: title.into(),
            description: description.into(),
            label,
            height: ROW * rows.len(),
            ticks: axis
                .ticks()
                .into_iter()
                .map(|(value, label)| Tick { at: at(value), label })
                .collect(),
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_share_an_axis() {
        let interval = |mean: f64, spread: f64| Interval {
            name: "a".to_owned(),
            mean,
            spread,
            value: String::new(),
        };
        let all = vec![interval(1.0, 0.5), interval(f64::NAN, 0.0), interval(2.0, 0.0)];
        let placed = Intervals::new("title", "description", "loss", all);
        assert_eq!(placed.rows.len(), 2);
        assert_eq!(placed.height, 2 * ROW);
        let [first, last] = [&placed.rows[0], &placed.rows[1]];
        // 6 % of the span of 0.5 to 2 are free on both sides.
        assert_eq!((first.low, first.mean, first.high), (5.36, 35.12, 64.88));
        assert_eq!((last.low, last.mean, last.high), (94.64, 94.64, 94.64));
        assert_eq!(last.top, ROW);
        assert!(placed.ticks.len() >= 2);
    }
}
