//! The score of a document, and how scores are aggregated.

use super::answers::Answer;
use super::bootstrap::bootstrap_stderr;
use super::metric::{Aggregation, Metric};
use super::target::{ChoiceLength, Target};
use super::task_file::MetricEntry;
use super::text_scores::{contained, f1, normalized, rouge_l};

/// The score of a document: `value` over `weight`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Score {
    pub(super) value: f64,
    pub(super) weight: f64,
}

impl MetricEntry {
    /// The score of a document.
    pub(super) fn score(&self, target: &Target, answers: &[Answer]) -> Score {
        let first = answers.first();
        let log_likelihood = first.map_or(f64::NAN, Answer::log_likelihood);
        let (value, weight) = match (self.metric, target) {
            (Metric::WordPerplexity, Target::Counted { words, .. }) => {
                (log_likelihood, *words as f64)
            }
            (Metric::BytePerplexity | Metric::BitsPerByte, Target::Counted { bytes, .. }) => {
                (log_likelihood, *bytes as f64)
            }
            (Metric::Perplexity, _) => (log_likelihood, 1.0),
            (Metric::ExactMatch, Target::Texts(texts)) => {
                let text = self.simplified(first.map_or("", Answer::text));
                let matches = texts.iter().any(|target| self.simplified(target) == text);
                (f64::from(u8::from(matches)), 1.0)
            }
            (Metric::F1, Target::Texts(texts)) => (best(texts, first, f1), 1.0),
            (Metric::RougeL, Target::Texts(texts)) => (best(texts, first, rouge_l), 1.0),
            (Metric::StringMatchAll, Target::Texts(texts)) => {
                (contained(first.map_or("", Answer::text), texts), 1.0)
            }
            (metric, Target::Choices { right, lengths }) => {
                let chosen = choice(metric, lengths, answers);
                (f64::from(u8::from(chosen.is_some_and(|chosen| right.contains(&chosen)))), 1.0)
            }
            _ => (f64::from(u8::from(first.is_some_and(Answer::is_greedy))), 1.0),
        };
        Score { value, weight }
    }

    /// A text without what does not count.
    fn simplified(&self, text: &str) -> String {
        if self.normalize_answer {
            return normalized(text);
        }
        let text = if self.ignore_case { text.to_lowercase() } else { text.to_owned() };
        let counts = |c: &char| {
            let ignored = (self.ignore_punctuation && c.is_ascii_punctuation())
                || (self.ignore_numbers && c.is_ascii_digit());
            !ignored
        };
        text.chars().filter(counts).collect()
    }

    /// The result of all documents, and its standard error if there is a formula.
    pub(super) fn aggregate(&self, scores: &[Score]) -> (f64, Option<f64>) {
        let count = scores.len() as f64;
        let mean = |scores: &[Score]| scores.iter().map(|score| score.value).sum::<f64>() / count;
        let weighted = || {
            let [values, weights] = scores.iter().fold([0.0; 2], |[values, weights], score| {
                [values + score.value, weights + score.weight]
            });
            values / weights
        };
        match self.aggregation.unwrap_or(self.metric.aggregation()) {
            Aggregation::WeightedPerplexity => ((-weighted()).exp(), None),
            Aggregation::BitsPerByte => (-weighted() / std::f64::consts::LN_2, None),
            Aggregation::Mean => {
                let mean = mean(scores);
                let squares = scores.iter().map(|score| (score.value - mean).powi(2)).sum::<f64>();
                let stderr = (squares / (count - 1.0)).sqrt() / count.sqrt();
                (mean, (scores.len() > 1).then_some(stderr))
            }
            Aggregation::Perplexity => {
                let values: Vec<f64> = scores.iter().map(|score| score.value).collect();
                let stderr =
                    (values.len() > 1).then(|| bootstrap_stderr(&values, |mean| (-mean).exp()));
                ((-mean(scores)).exp(), stderr)
            }
        }
    }
}

/// The score of the target that a text fits best.
fn best(targets: &[String], answer: Option<&Answer>, score: fn(&str, &str) -> f64) -> f64 {
    let text = answer.map_or("", Answer::text);
    targets.iter().map(|target| score(text, target)).fold(0.0, f64::max)
}

/// The choice with the largest score, the first of equals. The log-likelihoods of choices without
/// their context, if there are any, follow the others.
fn choice(metric: Metric, lengths: &[ChoiceLength], answers: &[Answer]) -> Option<usize> {
    let (answers, alone) = answers.split_at(lengths.len().min(answers.len()));
    let scores = answers.iter().zip(lengths).enumerate().map(|(index, (answer, length))| {
        let log_likelihood = answer.log_likelihood();
        let score = match metric {
            Metric::AccNorm => log_likelihood / length.characters as f64,
            Metric::AccBytes => log_likelihood / length.bytes as f64,
            Metric::AccMutualInfo => {
                log_likelihood - alone.get(index).map_or(f64::NAN, Answer::log_likelihood)
            }
            _ => log_likelihood,
        };
        (index, score)
    });
    let best = scores.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(metric: Metric) -> MetricEntry {
        MetricEntry::of(metric)
    }

    fn choices(right: &[usize], texts: &[&str]) -> Target {
        let length =
            |text: &&str| ChoiceLength { characters: text.chars().count(), bytes: text.len() };
        Target::Choices { right: right.to_vec(), lengths: texts.iter().map(length).collect() }
    }

    #[test]
    fn choices_are_normalized_by_their_own_length() {
        let answers = [-4.0, -5.0, -5.5, -1.0, -4.0, -1.0].map(|x| Answer::Continuation(x, false));
        let texts = ["ab", "abcd", "\u{e9}\u{e9}\u{e9}"];
        for (metric, chosen) in [
            (Metric::Acc, 0),
            (Metric::AccNorm, 1),
            (Metric::AccBytes, 2),
            (Metric::AccMutualInfo, 1),
        ] {
            for right in 0..3 {
                let score = entry(metric).score(&choices(&[right], &texts), &answers);
                assert_eq!(score.value == 1.0, right == chosen, "{metric}: {right}");
            }
        }
        let both = entry(Metric::Acc).score(&choices(&[1, 0], &texts), &answers);
        assert_eq!(both.value, 1.0, "any right choice counts");
    }

    #[test]
    fn results_are_those_of_the_formulas() {
        let scores = |values: &[f64], weight| -> Vec<Score> {
            values.iter().map(|&value| Score { value, weight }).collect()
        };
        // Four documents, one right: the sample's standard deviation is 0.5.
        let (acc, stderr) = entry(Metric::Acc).aggregate(&scores(&[1.0, 0.0, 0.0, 0.0], 1.0));
        assert_eq!((acc, stderr), (0.25, Some(0.25)));
        assert_eq!(entry(Metric::Acc).aggregate(&scores(&[1.0], 1.0)), (1.0, None));
        let texts = scores(&[-2.0, -4.0], 3.0);
        let (perplexity, stderr) = entry(Metric::WordPerplexity).aggregate(&texts);
        assert!((perplexity - 1.0_f64.exp()).abs() < 1e-15 && stderr.is_none());
        let (bits, _) = entry(Metric::BitsPerByte).aggregate(&texts);
        assert!((bits - std::f64::consts::LOG2_E).abs() < 1e-15);
        let (perplexity, stderr) = entry(Metric::Perplexity).aggregate(&texts);
        assert!((perplexity - 3.0_f64.exp()).abs() < 1e-12 && stderr.is_some());
    }

    #[test]
    fn texts_match_without_what_does_not_count() {
        let target = Target::Texts(vec!["Yes 1".to_owned(), "no".to_owned()]);
        let answer = |text: &str| [Answer::Text(text.to_owned())];
        let exact = entry(Metric::ExactMatch);
        assert_eq!(exact.score(&target, &answer("no")).value, 1.0);
        assert_eq!(exact.score(&target, &answer("No")).value, 0.0);
        let mut loose = exact;
        (loose.ignore_case, loose.ignore_punctuation, loose.ignore_numbers) = (true, true, true);
        assert_eq!(loose.score(&target, &answer("YES, ")).value, 1.0);
        assert_eq!(loose.score(&target, &answer("n-o!2")).value, 1.0);
    }
}
