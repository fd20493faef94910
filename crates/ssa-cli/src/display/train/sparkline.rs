//! Curves in a line of text.

const LEVELS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];

/// Maximum number of entries of a series: several times the columns of a wide terminal.
const LONGEST: usize = 1024;

/// All values of a run as means over increasingly long intervals, so that a curve of a million
/// steps costs no more than one of a thousand.
#[derive(Debug)]
pub(super) struct Series {
    means: Vec<f64>,
    /// Values per entry.
    piece: usize,
    /// Sum and count of the values of the unfinished interval.
    rest: (f64, usize),
}

impl Series {
    pub(super) fn new() -> Self {
        Self { means: Vec::new(), piece: 1, rest: (0.0, 0) }
    }

    pub(super) fn push(&mut self, value: f64) {
        self.rest = (self.rest.0 + value, self.rest.1 + 1);
        if self.rest.1 < self.piece {
            return;
        }
        self.means.push(self.rest.0 / self.piece as f64);
        self.rest = (0.0, 0);
        if self.means.len() == LONGEST {
            self.means = self.means.chunks(2).map(|pair| pair.iter().sum::<f64>() / 2.0).collect();
            self.piece *= 2;
        }
    }

    /// The curve in at most `width` characters.
    pub(super) fn curve(&self, width: usize) -> String {
        sparkline(&self.means, width)
    }
}

/// The curve of some values in at most `width` characters, scaled from their minimum to their
/// maximum; each character is a mean over an equal share. NaN and infinity leave a gap.
pub(super) fn sparkline(values: &[f64], width: usize) -> String {
    let columns = values.len().min(width);
    let means: Vec<f64> = (0..columns)
        .map(|column| {
            let share =
                &values[column * values.len() / columns..(column + 1) * values.len() / columns];
            share.iter().sum::<f64>() / share.len() as f64
        })
        .collect();
    let finite = || means.iter().copied().filter(|mean| mean.is_finite());
    let (least, greatest) =
        (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let level = |mean: f64| {
        // A constant is drawn in the middle.
        let height = if greatest > least { (mean - least) / (greatest - least) } else { 0.5 };
        LEVELS[((height * LEVELS.len() as f64) as usize).min(LEVELS.len() - 1)]
    };
    means.iter().map(|&mean| if mean.is_finite() { level(mean) } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_go_from_the_minimum_to_the_maximum() {
        assert_eq!(sparkline(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[3.0, 1.0], 8), "█▁");
        assert_eq!(sparkline(&[2.0; 3], 8), "▅▅▅");
        assert_eq!(sparkline(&[], 8), "");
    }

    #[test]
    fn long_curves_are_averaged() {
        let ramp: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(sparkline(&ramp, 8), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[0.0, 2.0, 4.0], 2).chars().count(), 2);
    }

    #[test]
    fn a_series_stays_short() {
        let mut series = Series::new();
        (0..100_000).for_each(|step| series.push(f64::from(step)));
        assert!(series.means.len() < LONGEST && series.piece == 128, "{series:?}");
        assert_eq!(series.means[1], 191.5);
        assert_eq!(series.curve(8), "▁▂▃▄▅▆▇█");
    }

    #[test]
    fn gaps_are_not_drawn() {
        assert_eq!(sparkline(&[1.0, f64::NAN, 3.0], 8), "▁ █");
    }
}
