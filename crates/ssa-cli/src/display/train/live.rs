//! The view on a terminal.
//!
//! ```text
//! demo          ━━━━━━━╸────  120/200  1532 tok/s  eta 00:00:42
//!   loss        ▇█▆▅▄▃▃▂▂▁▁▁  2.3456  cross-entropy 2.3021 (sparse)  gradient 0.71
//!   alignment   ▁▄█▇▆▅▄▄▃▃▃▃  0.00213  by layer ▂▃▅█  alpha 10  full stream 52 %
//!   sparsity    ▁▃▅▇█         full 0.926, sparse 0.925  by layer ▅▆▇█  KL 0.0034
//!   validation  █▅▃▁          full 2.2143, sparse 2.2310  best 2.2310 at step 100
//! ```
//!
//! A line shows as many fields as fit the terminal; curves and bar share the rest.

use std::env;

use ssa_eval::{ModeLoss, Monitored, Probe, Validation};
use ssa_model::AttentionMode;
use ssa_report::number::clock;
use ssa_train::{StepMetrics, TrainPlan};

use super::super::line::{Line, bar};
use super::super::screen::Screen;
use super::sparkline::{Series, sparkline};
use super::{Facts, stream};

/// Start and end of the color of curves.
const CYAN: [&str; 2] = ["\x1b[36m", "\x1b[0m"];

/// Columns before a curve: the indented name of the line.
const NAME: usize = 14;

/// Maximum columns of a curve over layers.
const LAYERS: usize = 24;

pub(super) struct Live {
    screen: Screen,
    view: View,
}

/// The content of the view.
struct View {
    run: String,
    step: usize,
    steps: usize,
    /// Speed and time left; empty before the first step.
    pace: [Option<String>; 3],
    loss: Curve,
    /// Only for methods with alignment.
    alignment: Option<Curve>,
    sparsity: Curve,
    validation: Curve,
    best_by: AttentionMode,
    best: Option<(usize, f64)>,
    /// Fraction of full-attention streams before the last probe.
    full_stream_fraction: Option<f64>,
    /// Start and end of a color; empty without colors.
    color: [&'static str; 2],
}

/// A line with a curve of all values so far and fields for the last value.
struct Curve {
    name: &'static str,
    values: Series,
    fields: Line,
}

impl Live {
    pub(super) fn new(plan: &TrainPlan) -> Self {
        let monitoring = &plan.config().monitoring;
        let turn = |every: usize| {
            let text = match every {
                0 => "off".to_owned(),
                1 => "every step".to_owned(),
                _ => format!("every {every} steps"),
            };
            Line::default().field(0, text)
        };
        let view = View {
            run: plan.config().run.name.clone(),
            step: 0,
            steps: plan.steps(),
            pace: [None, None, None],
            loss: Curve::new("loss", Line::default()),
            alignment: (plan.config().objective.method.is_aligned())
                .then(|| Curve::new("alignment", Line::default())),
            sparsity: Curve::new("sparsity", turn(monitoring.probe_every)),
            validation: Curve::new("validation", turn(monitoring.validate_every)),
            best_by: plan.best_by(),
            best: None,
            full_stream_fraction: None,
            color: if env::var_os("NO_COLOR").is_some() { [""; 2] } else { CYAN },
        };
        Self { screen: Screen::default(), view }
    }

    /// Shows a step that has just been done.
    pub(super) fn show(&mut self, facts: &Facts, metrics: &StepMetrics, measured: &Monitored) {
        self.remember(metrics, measured);
        self.view.pace = [
            Some(facts.speed()),
            Facts::mfu(metrics),
            Some(format!("eta {}", clock(facts.left(metrics.step)))),
        ];
        self.screen.draw(|width| self.view.lines(width));
    }

    /// Records a step without showing it.
    pub(super) fn remember(&mut self, metrics: &StepMetrics, measured: &Monitored) {
        self.view.add(metrics, measured);
    }

    /// Writes a line above the view.
    pub(super) fn note(&mut self, text: &str) {
        self.screen.print(text);
        self.screen.draw_now(|width| self.view.lines(width));
    }

    /// Leaves the last state on the terminal.
    pub(super) fn finish(&mut self) {
        self.screen.draw_now(|width| self.view.lines(width));
    }
}

impl View {
    fn lines(&self, width: usize) -> Vec<String> {
        let [speed, mfu, left] = self.pace.clone();
        let header = Line::default()
            .field(1, format!("{:<12}", self.run))
            .field(5, bar(curve_width(width), self.step as f64 / self.steps as f64))
            .field(0, format!("{}/{}", self.step, self.steps))
            .optional(3, speed)
            .optional(4, mfu)
            .optional(2, left);
        let curves = [
            Some(&self.loss),
            self.alignment.as_ref(),
            Some(&self.sparsity),
            Some(&self.validation),
        ];
        let curves = curves.into_iter().flatten().map(|curve| curve.line(width, self.color));
        [header.fit(width)].into_iter().chain(curves).collect()
    }

    fn add(&mut self, metrics: &StepMetrics, measured: &Monitored) {
        self.step = metrics.step;
        if let Some(probe) = &measured.probe {
            self.probe(probe);
        }
        let loss = Line::default()
            .field(0, format!("{:.4}", metrics.loss))
            .field(1, format!("cross-entropy {:.4} ({})", metrics.cross_entropy, stream(metrics)))
            .field(2, format!("gradient {:.2}", metrics.grad_norm))
            .field(3, format!("rate {:.1e}", metrics.learning_rate));
        self.loss.push(metrics.loss, loss);
        if let Some(alignment) = &mut self.alignment {
            let layers = sparkline(&metrics.alignment_per_layer, LAYERS);
            let streams = self
                .full_stream_fraction
                .map(|share| format!("full stream {:.0} %", 100.0 * share));
            let fields = Line::default()
                .field(0, format!("{:.5}", metrics.alignment))
                .field(1, format!("by layer {layers}"))
                .field(3, format!("alpha {}", metrics.effective_alpha))
                .optional(2, streams);
            alignment.push(metrics.alignment, fields);
        }
        if let Some(validation) = &measured.validation {
            self.validation(metrics.step, validation);
        }
    }

    fn probe(&mut self, probe: &Probe) {
        let Some(first) = probe.hidden_states.first() else { return };
        let means = probe.hidden_states.iter();
        let means: Vec<_> = means
            .map(|states| format!("{} {:.3}", states.mode, states.overall.attention_sparsity))
            .collect();
        let layers: Vec<f64> = first.layers.iter().map(|layer| layer.attention_sparsity).collect();
        let fields = Line::default()
            .field(0, means.join(", "))
            .field(1, format!("by layer {}", sparkline(&layers, LAYERS)))
            .field(2, format!("entropy {:.2} bits", first.overall.entropy_bits))
            .optional(3, probe.kl_full_sparse.map(|kl| format!("KL {kl:.4}")));
        self.full_stream_fraction = Some(probe.full_stream_fraction);
        self.sparsity.push(first.overall.attention_sparsity, fields);
    }

    fn validation(&mut self, step: usize, validation: &Validation) {
        let bits = |mode| validation.under(mode).map(|loss: ModeLoss| loss.bits_per_byte);
        let Some(decides) = bits(self.best_by) else { return };
        if validation.best {
            self.best = Some((step, decides));
        }
        let modes = [AttentionMode::Full, AttentionMode::Sparse];
        let losses: Vec<_> = modes
            .into_iter()
            .filter_map(|mode| Some(format!("{mode} {:.4}", bits(mode)?)))
            .collect();
        let fields = Line::default()
            .field(0, losses.join(", "))
            .field(2, "bits/byte")
            .optional(1, self.best.map(|(step, bits)| format!("best {bits:.4} at step {step}")));
        self.validation.push(decides, fields);
    }
}

impl Curve {
    fn new(name: &'static str, fields: Line) -> Self {
        Self { name, values: Series::new(), fields }
    }

    fn push(&mut self, value: f64, fields: Line) {
        self.values.push(value);
        self.fields = fields;
    }

    fn line(&self, width: usize, [begin, end]: [&str; 2]) -> String {
        let columns = curve_width(width);
        let curve = self.values.curve(columns);
        let gap = " ".repeat(columns - curve.chars().count());
        let fields = self.fields.fit(width.saturating_sub(NAME + columns + 2));
        format!("  {:<10}  {begin}{curve}{end}{gap}  {fields}", self.name)
    }
}

/// Columns of a curve on a terminal of this width: three eighths of the space after the names.
fn curve_width(width: usize) -> usize {
    width.saturating_sub(NAME) * 3 / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The view of a run of ssa with long numbers.
    fn view() -> View {
        let fields = |texts: &[&str]| {
            let ranked = texts.iter().zip(0..);
            ranked.fold(Line::default(), |line, (text, rank)| line.field(rank, *text))
        };
        let curve = |name, texts: &[&str]| {
            let mut curve = Curve::new(name, Line::default());
            (0..500).for_each(|step| curve.push(f64::from(step % 50), fields(texts)));
            curve
        };
        View {
            run: "demo".to_owned(),
            step: 1200,
            steps: 2000,
            pace: ["15324 tok/s", "mfu 31.0 %", "eta 00:12:42"].map(|text| Some(text.to_owned())),
            loss: curve(
                "loss",
                &["12.3456", "cross-entropy 12.3021 (sparse)", "gradient 0.71", "rate 2.9e-3"],
            ),
            alignment: Some(curve("alignment", &["0.00213", "by layer ▂▃▅█", "alpha 10"])),
            sparsity: curve("sparsity", &["full 0.926, sparse 0.925", "by layer ▅▆▇█"]),
            validation: curve(
                "validation",
                &["full 2.2143, sparse 2.2310", "best 2.2310 at step 1100", "bits/byte"],
            ),
            best_by: AttentionMode::Sparse,
            best: None,
            full_stream_fraction: None,
            color: [""; 2],
        }
    }

    #[test]
    fn the_view_fits_every_terminal() {
        for width in 20..=200 {
            for line in view().lines(width) {
                let columns = line.trim_end().chars().count();
                assert!(columns <= width, "{columns} of {width}: {line}");
                // No number is cut: every shown text is a complete field.
                for word in ["12.3456", "0.00213", "1200/2000", "2.2310", "00:12:42", "0.926"] {
                    for start in 1..word.len() {
                        let cut = line.trim_end().ends_with(&format!(" {}", &word[..start]));
                        assert!(!cut, "{width}: {line}");
                    }
                }
            }
        }
    }

    #[test]
    fn curves_use_the_width() {
        let curve = |width| {
            let line = view().lines(width).swap_remove(1);
            line.chars().filter(|c| ('\u{2581}'..='\u{2588}').contains(c)).count()
        };
        assert_eq!([59, 79, 129].map(curve), [16, 24, 43]);
    }

    #[test]
    fn sixty_columns_have_what_matters() {
        let lines = view().lines(59);
        for (line, part) in
            lines.iter().zip(["1200/2000", "12.3456", "0.00213", "sparse 0.925", "sparse 2.2310"])
        {
            assert!(line.contains(part), "{line}");
        }
        assert!(lines[0].contains("demo") && lines[0].contains("eta 00:12:42"), "{}", lines[0]);
    }

    #[test]
    fn wide_terminals_have_everything() {
        let lines = view().lines(129);
        for (line, part) in lines.iter().zip([
            "mfu 31.0 %",
            "rate 2.9e-3",
            "alpha 10",
            "by layer ▅▆▇█",
            "best 2.2310 at step 1100",
        ]) {
            assert!(line.contains(part), "{line}");
        }
    }
}
