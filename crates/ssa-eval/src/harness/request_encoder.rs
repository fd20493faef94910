//! Requests as tokens, cut to the model's context.

use ssa_text::TextError;

use super::encode::PromptEncoder;
use super::output_type::OutputType;
use super::prompts::Prompt;
use super::request::{PreparedDocument, Request, Truncate, Truncation};

/// Encodes the requests of one document after another.
pub(super) struct RequestEncoder<'a> {
    pub(super) encoder: PromptEncoder<'a>,
    pub(super) context_length: usize,
    pub(super) max_generated: usize,
    pub(super) truncate: Truncate,
    pub(super) truncation: Truncation,
}

/// Why a document cannot be used.
pub(super) enum Fault {
    Row(String),
    Text(TextError),
}

impl From<TextError> for Fault {
    fn from(error: TextError) -> Self {
        Self::Text(error)
    }
}

impl RequestEncoder<'_> {
    /// The requests of a document.
    ///
    /// # Errors
    /// A text that cannot be encoded or does not fit.
    pub(super) fn of(
        &mut self,
        kind: OutputType,
        prompt: Prompt,
    ) -> Result<PreparedDocument, Fault> {
        let Prompt { contexts, continuations, alone, target } = prompt;
        let truncated = self.truncation.requests;
        let mut requests = Vec::new();
        match kind {
            OutputType::LogLikelihoodRolling => {
                for text in continuations {
                    let windows = self.encoder.windows(&text, self.context_length)?;
                    requests.push(Request::Rolling { text, windows });
                }
            }
            OutputType::GenerateUntil => {
                for context in contexts {
                    let tokens = self.generated_after(&context)?;
                    requests.push(Request::Generation { context, tokens });
                }
            }
            OutputType::LogLikelihood | OutputType::MultipleChoice => {
                for context in contexts {
                    for continuation in &continuations {
                        requests.push(self.continuation(context.clone(), continuation.clone())?);
                    }
                }
                for continuation in alone {
                    requests.push(self.continuation(String::new(), continuation)?);
                }
            }
        }
        let truncated = self.truncation.requests > truncated;
        Ok(PreparedDocument { requests, target, cell: None, truncated })
    }

    /// The tokens that a document takes: of the longest context with the longest continuation, or
    /// with the text to generate.
    pub(super) fn tokens_of(
        &mut self,
        kind: OutputType,
        prompt: &Prompt,
    ) -> Result<usize, TextError> {
        let (mut context, mut after) = (0, 0);
        for text in &prompt.contexts {
            context = context.max(self.encoder.prompt(text)?.len());
        }
        for text in &prompt.continuations {
            after = after.max(self.encoder.plain(text)?.len());
        }
        let generated = if kind == OutputType::GenerateUntil { self.max_generated } else { 0 };
        Ok(context + after + generated)
    }

    fn continuation(&mut self, context: String, continuation: String) -> Result<Request, Fault> {
        let mut tokens = self.encoder.pair(&context, &continuation)?;
        let (scored, most) = (tokens.tokens.len(), self.context_length);
        if scored == 0 || scored > most {
            return Err(Fault::Row(format!(
                "the continuation {continuation:?} has {scored} tokens, expected 1 to the {most} \
                 of the model's context"
            )));
        }
        // The last token is predicted, not read.
        tokens.context = self.shortened(tokens.context, most + 1 - scored)?;
        Ok(Request::Continuation { context, continuation, tokens })
    }

    /// The tokens of a prompt that leaves room for the text to generate.
    fn generated_after(&mut self, context: &str) -> Result<Vec<u32>, Fault> {
        let (generated, most) = (self.max_generated, self.context_length);
        if generated == 0 || generated >= most {
            return Err(Fault::Row(format!(
                "max_gen_toks is {generated}, expected less than the {most} tokens of the model's \
                 context"
            )));
        }
        let tokens = self.encoder.prompt(context)?;
        Ok(self.shortened(tokens, most - generated)?)
    }

    /// Shortens a context that is too long, and counts what is lost.
    fn shortened(&mut self, mut context: Vec<u32>, most: usize) -> Result<Vec<u32>, TextError> {
        let before = context.len();
        if before <= most {
            return Ok(context);
        }
        if self.truncate == Truncate::Middle {
            let half = most / 2;
            let [first, last] = [&context[..half], &context[before - half..]];
            let text = [self.encoder.text_of(first)?, self.encoder.text_of(last)?].concat();
            context = self.encoder.prompt(&text)?;
        }
        // Text that is encoded again can have more tokens than before.
        context.drain(..context.len().saturating_sub(most));
        self.truncation.requests += 1;
        self.truncation.tokens += before - context.len();
        Ok(context)
    }
}

#[cfg(test)]
mod tests {
    use ssa_data::Tokenizer;

    use super::*;

    #[test]
    fn contexts_lose_their_beginning_or_their_middle() {
        let text: String = ('a'..='z').collect();
        for (truncate, most, expected) in [
            (Truncate::Start, 10, "qrstuvwxyz"),
            (Truncate::Middle, 10, "abcdevwxyz"),
            // An odd number of tokens loses one more, as in LongBench.
            (Truncate::Middle, 7, "abcxyz"),
            (Truncate::Middle, 26, "abcdefghijklmnopqrstuvwxyz"),
        ] {
            let mut encoder = RequestEncoder {
                encoder: PromptEncoder::new(&Tokenizer::Bytes).unwrap(),
                context_length: most + 4,
                max_generated: 4,
                truncate,
                truncation: Truncation::default(),
            };
            let Ok(tokens) = encoder.generated_after(&text) else { panic!("the text fits") };
            assert_eq!(encoder.encoder.text_of(&tokens).unwrap(), expected);
            let lost = text.len() - expected.len();
            assert_eq!(encoder.truncation.tokens, lost);
            assert_eq!(encoder.truncation.requests, usize::from(lost > 0));
        }
    }
}
