//! The methods: which attentions a layer computes, and how it combines their outputs.
//!
//! This is the only place where methods differ. All other code queries a [`Method`]. A new method
//! is an entry here, built from the kinds in `kinds/`.

mod keys;
mod kind;
mod kinds;
mod plan;

use std::fmt;

use ssa_kernels::ops::attention::AttentionMode;
use ssa_kernels::ops::gate::GateBranch;
use ssa_names::Named;

pub use keys::AttendedKeys;
pub use kind::{
    AttentionInputs, AttentionKind, AttentionSizes, CachedAttention, CachedInputs, SavedAttention,
};
pub use kinds::{Compression, Full, Sparse, Window};
pub use plan::{LayerPlan, PlannedAttention};

use crate::Result;
use crate::error::OptionsError;

/// An attention method: the attentions of a model and how training uses them.
#[derive(Clone, Copy)]
pub struct Method(&'static MethodSpec);

/// The definition of a [`Method`].
#[derive(Debug)]
pub struct MethodSpec {
    /// Name in settings, on the command line, in files and in reports. It identifies the method.
    pub name: &'static str,
    /// Full name, for the title of a report.
    pub title: &'static str,
    /// The attentions of mode full, whose gated outputs are added; empty if the mode does not
    /// exist.
    pub full: &'static [&'static dyn AttentionKind],
    /// The same for mode sparse.
    pub sparse: &'static [&'static dyn AttentionKind],
    /// The modes that a training step runs.
    pub training: Training,
}

/// The modes that a training step of a method runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Training {
    /// Always this mode.
    Single(AttentionMode),
    /// Both modes, one attention each, with a shared gate. The drawn one feeds the next layer, and
    /// an alignment loss pulls their outputs together.
    Aligned,
}

impl Method {
    /// Full attention only.
    pub const FULL: Self = Self(&MethodSpec {
        name: "full",
        title: "Full attention",
        full: &[&Full],
        sparse: &[&Sparse],
        training: Training::Single(AttentionMode::Full),
    });

    /// Sparse attention only.
    pub const MOBA: Self = Self(&MethodSpec {
        name: "moba",
        title: "MoBA",
        full: &[&Full],
        sparse: &[&Sparse],
        training: Training::Single(AttentionMode::Sparse),
    });

    /// Compression, selection and sliding window, each with its own gate.
    pub const NSA: Self = Self(&MethodSpec {
        name: "nsa",
        title: "Native sparse attention",
        full: &[],
        sparse: &[&Compression, &Sparse, &Window],
        training: Training::Single(AttentionMode::Sparse),
    });

    /// One stream of full and one of sparse attention, aligned with each other.
    pub const SSA: Self = Self(&MethodSpec {
        name: "ssa",
        title: "Sparse sparse attention",
        full: &[&Full],
        sparse: &[&Sparse],
        training: Training::Aligned,
    });

    /// The methods that settings can name.
    pub const ALL: &'static [Self] = &[Self::FULL, Self::MOBA, Self::NSA, Self::SSA];

    /// The method of a model that names none: full attention without gates, as it was then trained.
    pub fn of_model(gated: bool) -> Self {
        if gated { Self::default() } else { Self::FULL }
    }

    /// Creates a method that is not in [`Method::ALL`]. Settings cannot name it.
    pub const fn new(spec: &'static MethodSpec) -> Self {
        Self(spec)
    }

    /// The name in settings, on the command line, in files and in reports.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The full name.
    pub fn title(self) -> &'static str {
        self.0.title
    }

    /// The modes that a training step runs.
    pub fn training(self) -> Training {
        self.0.training
    }

    /// Whether training computes both modes and aligns them.
    pub fn is_aligned(self) -> bool {
        self.0.training == Training::Aligned
    }

    /// Whether the output of this mode may feed the next layer in training.
    pub fn trains_on(self, mode: AttentionMode) -> bool {
        match self.0.training {
            Training::Single(only) => mode == only,
            Training::Aligned => true,
        }
    }

    /// The intended inference mode: the mode of training, or sparse for methods that train on both.
    pub fn main_mode(self) -> AttentionMode {
        match self.0.training {
            Training::Single(only) => only,
            Training::Aligned => AttentionMode::Sparse,
        }
    }

    /// Whether a model has this mode.
    pub fn has_mode(self, mode: AttentionMode) -> bool {
        !self.attentions(mode).is_empty()
    }

    /// The modes of a model, full before sparse.
    pub fn modes(self) -> impl Iterator<Item = AttentionMode> {
        AttentionMode::ALL.iter().copied().filter(move |mode| self.has_mode(*mode))
    }

    /// The attentions of a mode, whose gated outputs are added; empty if the mode does not exist.
    pub fn attentions(self, mode: AttentionMode) -> &'static [&'static dyn AttentionKind] {
        match mode {
            AttentionMode::Full => self.0.full,
            AttentionMode::Sparse => self.0.sparse,
        }
    }

    /// All attentions that a training step computes.
    pub fn training_attentions(self) -> Vec<PlannedAttention> {
        match self.0.training {
            Training::Single(mode) => self.planned(mode),
            Training::Aligned => {
                [self.planned(AttentionMode::Full), self.planned(AttentionMode::Sparse)].concat()
            }
        }
    }

    /// The gates that a training step computes, each once: attentions may share a gate.
    pub fn training_gates(self) -> Vec<GateBranch> {
        let mut gates = Vec::new();
        for planned in self.training_attentions() {
            if !gates.contains(&planned.kind.gate()) {
                gates.push(planned.kind.gate());
            }
        }
        gates
    }

    /// Whether it weighs outputs by gates: those of several attentions that it adds, or of two
    /// streams that it aligns. With one attention at a time a model can do without gates.
    pub fn needs_gates(self) -> bool {
        self.is_aligned() || self.modes().any(|mode| self.attentions(mode).len() > 1)
    }

    /// Whether one of its attentions needs a `window_size`.
    pub fn uses_window(self) -> bool {
        self.0.full.iter().chain(self.0.sparse).any(|kind| kind.uses_window())
    }

    /// What a layer computes at inference.
    ///
    /// # Errors
    /// [`OptionsError::NoSuchMode`].
    pub fn inference_plan(self, mode: AttentionMode) -> Result<LayerPlan> {
        if !self.has_mode(mode) {
            let (method, has) = (self.name(), self.main_mode());
            return Err(OptionsError::NoSuchMode { method, mode, has }.into());
        }
        Ok(LayerPlan::new(self.planned(mode), mode))
    }

    /// What a layer computes in a training step if the mode `stream` feeds the next layer.
    ///
    /// # Errors
    /// [`OptionsError::NoSuchMode`]; [`OptionsError::NotAlignable`] if the method is
    /// [`Training::Aligned`] without exactly one attention per mode and a shared gate.
    pub fn training_plan(self, stream: AttentionMode) -> Result<LayerPlan> {
        if !self.is_aligned() {
            return self.inference_plan(stream);
        }
        match (self.0.full, self.0.sparse) {
            ([full], [sparse]) if full.gate() == sparse.gate() => {
                Ok(LayerPlan::new(self.training_attentions(), stream))
            }
            _ => Err(OptionsError::NotAlignable { method: self.name() }.into()),
        }
    }

    fn planned(self, mode: AttentionMode) -> Vec<PlannedAttention> {
        self.attentions(mode).iter().map(|&kind| PlannedAttention { kind, mode }).collect()
    }
}

impl Named for Method {
    const KIND: &'static str = "attention method";
    const ALL: &'static [Self] = Self::ALL;

    fn name(self) -> &'static str {
        self.0.name
    }
}

ssa_names::name_traits!(Method);

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Method {}

impl Default for Method {
    fn default() -> Self {
        Self::SSA
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_plan_for_what_it_claims() {
        for &method in Method::ALL {
            assert!(method.has_mode(method.main_mode()), "{method}");
            for mode in method.modes() {
                let plan = method.inference_plan(mode).unwrap();
                assert!(plan.attentions().iter().all(|planned| planned.mode == plan.stream()));
            }
            let streams = AttentionMode::ALL.iter().filter(|mode| method.trains_on(**mode));
            for &stream in streams {
                let plan = method.training_plan(stream).unwrap();
                assert!(plan.attentions().iter().any(|planned| planned.mode == stream));
            }
        }
    }

    #[test]
    fn names_are_unique_and_round_trip() {
        for (index, &method) in Method::ALL.iter().enumerate() {
            assert_eq!(method.name().parse::<Method>(), Ok(method));
            assert!(Method::ALL[index + 1..].iter().all(|other| *other != method));
        }
        let error = serde_json::from_str::<Method>("\"dense\"").unwrap_err().to_string();
        assert!(error.contains("`full`, `moba`, `nsa` or `ssa`"), "{error}");
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn only_one_attention_in_each_mode_can_be_aligned() {
        static UNALIGNABLE: MethodSpec = MethodSpec {
            name: "unalignable",
            title: "Full attention and all of NSA",
            full: &[&Full],
            sparse: &[&Compression, &Sparse, &Window],
            training: Training::Aligned,
        };
        let error = Method::new(&UNALIGNABLE).training_plan(AttentionMode::Full).unwrap_err();
        assert!(error.to_string().contains("`unalignable`"), "{error}");
    }
}
