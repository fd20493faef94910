//! Metrics, and the kinds of tasks that have them.

use super::output_type::OutputType;

/// What a task measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Whether the likeliest choice is right; of a target, whether it is the greedy continuation.
    Acc,
    /// As `Acc`, with log-likelihoods divided by the characters of the choice.
    AccNorm,
    /// As `Acc`, with log-likelihoods divided by the bytes of the choice.
    AccBytes,
    /// As `Acc`, less the log-likelihood of the choice without the context.
    AccMutualInfo,
    /// `exp` of the mean negative log-likelihood of a target.
    Perplexity,
    /// `exp` of the negative log-likelihood of all texts over their words.
    WordPerplexity,
    /// `exp` of the negative log-likelihood of all texts over their bytes.
    BytePerplexity,
    /// The negative log-likelihood of all texts in bits over their bytes.
    BitsPerByte,
    /// Whether a generated text is the target.
    ExactMatch,
    /// The F1 of the words of a generated text and the best target, as in LongBench.
    F1,
    /// ROUGE-L of a generated text and the best target, as in LongBench.
    RougeL,
    /// The share of targets that a generated text contains, as in RULER.
    StringMatchAll,
}

ssa_names::names!(Metric: "metric" {
    Acc = "acc",
    AccNorm = "acc_norm",
    AccBytes = "acc_bytes",
    AccMutualInfo = "acc_mutual_info",
    Perplexity = "perplexity",
    WordPerplexity = "word_perplexity",
    BytePerplexity = "byte_perplexity",
    BitsPerByte = "bits_per_byte",
    ExactMatch = "exact_match",
    F1 = "f1",
    RougeL = "rouge_l",
    StringMatchAll = "string_match_all",
});

/// How the scores of documents become a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregation {
    Mean,
    Perplexity,
    WeightedPerplexity,
    BitsPerByte,
}

ssa_names::names!(Aggregation: "aggregation" {
    Mean = "mean",
    Perplexity = "perplexity",
    WeightedPerplexity = "weighted_perplexity",
    BitsPerByte = "bits_per_byte",
});

impl Metric {
    /// Whether tasks of a kind can have it.
    pub(super) fn is_of(self, kind: OutputType) -> bool {
        match kind {
            OutputType::LogLikelihood => matches!(self, Self::Acc | Self::Perplexity),
            OutputType::LogLikelihoodRolling => {
                matches!(self, Self::WordPerplexity | Self::BytePerplexity | Self::BitsPerByte)
            }
            OutputType::MultipleChoice => {
                matches!(self, Self::Acc | Self::AccNorm | Self::AccBytes | Self::AccMutualInfo)
            }
            OutputType::GenerateUntil => {
                let texts = [Self::ExactMatch, Self::F1, Self::RougeL, Self::StringMatchAll];
                texts.contains(&self)
            }
        }
    }

    /// Whether tasks of a kind have it if they list none.
    pub(super) fn is_default_of(self, kind: OutputType) -> bool {
        let on_request =
            [Self::AccBytes, Self::AccMutualInfo, Self::F1, Self::RougeL, Self::StringMatchAll];
        self.is_of(kind) && !on_request.contains(&self)
    }

    /// Whether it needs the log-likelihoods of choices without their context.
    pub(super) fn needs_alone(self) -> bool {
        self == Self::AccMutualInfo
    }

    /// How scores are aggregated if a task does not say.
    pub(super) fn aggregation(self) -> Aggregation {
        match self {
            Self::Perplexity => Aggregation::Perplexity,
            Self::WordPerplexity | Self::BytePerplexity => Aggregation::WeightedPerplexity,
            Self::BitsPerByte => Aggregation::BitsPerByte,
            _ => Aggregation::Mean,
        }
    }
}
