//! The view on a terminal.
//!
//! ```text
//! demo  ━━━━━━━━━━━━╸───────────  120/200  1532 tok/s  eta 42s
//!   loss        ▇█▆▅▄▃▃▂▂▁▁▁  2.3456  cross-entropy 2.3021 (sparse)  gradient 0.71  rate 2.9e-3
//!   alignment   ▁▄█▇▆▅▄▄▃▃▃▃  0.00213  by layer ▂▃▅█  alpha 10  full streams 52 %
//!   sparsity    ▁▃▅▇█         full 0.926, sparse 0.925  by layer ▅▆▇█  entropy 3.15 bits  KL 0.0034
//!   validation  █▅▃▁          full 2.214, sparse 2.231 bits/byte  best 2.231 at step 100
//! ```

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use ssa_eval::{ModeLoss, Monitored, Probe, Validation};
use ssa_model::{AttentionMode, Method};
use ssa_train::{StepMetrics, TrainPlan};

use super::super::progress::bar_style;
use super::sparkline::{Series, sparkline};
use super::{Facts, stream};

/// Characters of a curve.
const WIDTH: usize = 24;

pub(super) struct Live {
    bar: ProgressBar,
    loss: Curve,
    /// Only methods with alignment have it.
    alignment: Option<Curve>,
    sparsity: Curve,
    validation: Curve,
    best_by: AttentionMode,
    best: Option<(usize, f64)>,
    /// Fraction of steps on full attention before the last probe.
    full_stream_fraction: Option<f64>,
}

/// A line with a curve of all values so far and a text about the last.
struct Curve {
    values: Series,
    line: ProgressBar,
}

impl Live {
    pub(super) fn new(plan: &TrainPlan) -> Self {
        let all = MultiProgress::new();
        let bar = all.add(
            ProgressBar::new(plan.steps() as u64)
                .with_style(bar_style("{prefix}  {bar:28} {pos}/{len}  {msg}")),
        );
        bar.set_prefix(plan.config().run.name.clone());
        let monitoring = &plan.config().monitoring;
        let turn = |every: usize| {
            if every == 0 { "off".to_owned() } else { format!("every {every} steps") }
        };
        let curve = |name: &str, text: String| Curve::new(&all, name, text);
        Self {
            bar,
            loss: curve("loss", String::new()),
            alignment: (plan.config().objective.method == Method::Ssa)
                .then(|| curve("alignment", String::new())),
            sparsity: curve("sparsity", turn(monitoring.probe_every)),
            validation: curve("validation", turn(monitoring.validate_every)),
            best_by: plan.best_by(),
            best: None,
            full_stream_fraction: None,
        }
    }

    /// Shows a step that has just been done.
    pub(super) fn show(&mut self, facts: &Facts, metrics: &StepMetrics, monitored: &Monitored) {
        self.remember(metrics, monitored);
        self.bar.set_message(format!("{}  eta {}", facts.speed(metrics), facts.left(metrics.step)));
    }

    /// Shows a step, done by whatever program.
    pub(super) fn remember(&mut self, metrics: &StepMetrics, monitored: &Monitored) {
        if let Some(probe) = &monitored.probe {
            self.probe(probe);
        }
        self.loss.push(
            metrics.loss,
            format!(
                "{:.4}  cross-entropy {:.4} ({})  gradient {:.2}  rate {:.1e}",
                metrics.loss,
                metrics.cross_entropy,
                stream(metrics).trim_end(),
                metrics.grad_norm,
                metrics.learning_rate
            ),
        );
        if let Some(alignment) = &mut self.alignment {
            let layers = sparkline(&metrics.alignment_per_layer, WIDTH);
            let streams = self
                .full_stream_fraction
                .map_or_else(String::new, |share| format!("  full streams {:.0} %", 100.0 * share));
            let text = format!(
                "{:.5}  by layer {layers}  alpha {}{streams}",
                metrics.alignment, metrics.effective_alpha
            );
            alignment.push(metrics.alignment, text);
        }
        if let Some(validation) = &monitored.validation {
            self.validation(metrics.step, validation);
        }
        self.bar.set_position(metrics.step as u64);
    }

    /// A line above the view.
    pub(super) fn note(&self, text: &str) {
        self.bar.println(text);
    }

    fn probe(&mut self, probe: &Probe) {
        let Some(first) = probe.hidden_states.first() else { return };
        let means = probe.hidden_states.iter();
        let means: Vec<_> = means
            .map(|states| format!("{} {:.3}", states.mode, states.overall.attention_sparsity))
            .collect();
        let layers: Vec<f64> = first.layers.iter().map(|layer| layer.attention_sparsity).collect();
        let kl = probe.kl_full_sparse.map_or_else(String::new, |kl| format!("  KL {kl:.4}"));
        let text = format!(
            "{}  by layer {}  entropy {:.2} bits{kl}",
            means.join(", "),
            sparkline(&layers, WIDTH),
            first.overall.entropy_bits,
        );
        self.full_stream_fraction = Some(probe.full_stream_fraction);
        self.sparsity.push(first.overall.attention_sparsity, text);
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
        let best = self
            .best
            .map_or_else(String::new, |(step, bits)| format!("  best {bits:.4} at step {step}"));
        self.validation.push(decides, format!("{} bits/byte{best}", losses.join(", ")));
    }

    pub(super) fn finish(&self) {
        let curves = [
            Some(&self.loss),
            self.alignment.as_ref(),
            Some(&self.sparsity),
            Some(&self.validation),
        ];
        curves.into_iter().flatten().for_each(|curve| curve.line.abandon());
        self.bar.abandon();
    }
}

impl Curve {
    fn new(all: &MultiProgress, name: &str, text: String) -> Self {
        let line = all.add(ProgressBar::new_spinner());
        // A template that cannot be read would leave the default one: less to see, no reason to
        // stop.
        if let Ok(style) = ProgressStyle::with_template(&format!(
            "  {name:<10}  {{prefix:{WIDTH}.cyan}}  {{wide_msg}}"
        )) {
            line.set_style(style);
        }
        line.set_message(text);
        Self { values: Series::new(), line }
    }

    fn push(&mut self, value: f64, text: String) {
        self.values.push(value);
        self.line.set_prefix(self.values.curve(WIDTH));
        self.line.set_message(text);
    }
}
