//! Kinds of tasks.

/// What a task asks of a model, and how it is scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputType {
    /// The log-likelihood of a target after a context.
    LogLikelihood,
    /// The log-likelihood of a whole text, in windows as long as the model's context.
    LogLikelihoodRolling,
    /// The log-likelihoods of several choices.
    MultipleChoice,
    /// The text that the model generates.
    #[default]
    GenerateUntil,
}

ssa_names::names!(OutputType: "output_type" {
    LogLikelihood = "loglikelihood",
    LogLikelihoodRolling = "loglikelihood_rolling",
    MultipleChoice = "multiple_choice",
    GenerateUntil = "generate_until",
});
