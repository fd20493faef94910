//! Text as it is generated.

use std::ops::ControlFlow;

use anyhow::Result;
use ssa_data::{Decoder, Tokenizer};
use ssa_infer::{GenerationObserver, StopStrings, Stopped};

use crate::display::write_bytes;
use crate::signals::AnswerInterrupt;

/// Turns tokens into text, finds stop strings, and writes the text to standard output.
pub(in crate::commands) struct TextStream<'a> {
    decoder: Decoder<'a>,
    stops: StopStrings,
    stopped: bool,
    /// The text so far, without a stop string.
    text: String,
    writes: bool,
    interrupt: Option<&'a AnswerInterrupt>,
    failure: Option<anyhow::Error>,
}

impl<'a> TextStream<'a> {
    pub(in crate::commands) fn new(
        tokenizer: &'a Tokenizer,
        stops: StopStrings,
        writes: bool,
        interrupt: Option<&'a AnswerInterrupt>,
    ) -> Self {
        Self {
            decoder: tokenizer.decoder(),
            stops,
            stopped: false,
            text: String::new(),
            writes,
            interrupt,
            failure: None,
        }
    }

    /// The whole text, after writing what was held back.
    pub(in crate::commands) fn finish(mut self) -> Result<String> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if !self.stopped {
            let rest = self.decoder.finish()?;
            let rest = match self.stops.push(&rest) {
                Stopped::No(text) => text + &self.stops.finish(),
                Stopped::Yes(text) => text,
            };
            show(&mut self.text, &rest, self.writes)?;
        }
        Ok(self.text)
    }

    fn take(&mut self, id: u32) -> Result<()> {
        let text = match self.stops.push(&self.decoder.push(id)?) {
            Stopped::No(text) => text,
            Stopped::Yes(text) => {
                self.stopped = true;
                text
            }
        };
        show(&mut self.text, &text, self.writes)
    }

    fn flow(&self) -> ControlFlow<()> {
        let interrupted = self.interrupt.is_some_and(AnswerInterrupt::requested);
        match self.stopped || interrupted || self.failure.is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

fn show(all: &mut String, text: &str, writes: bool) -> Result<()> {
    all.push_str(text);
    if writes && !text.is_empty() { write_bytes(text.as_bytes()) } else { Ok(()) }
}

impl GenerationObserver for TextStream<'_> {
    fn prefilled(&mut self, _: usize, _: usize) -> ControlFlow<()> {
        self.flow()
    }

    fn token(&mut self, _: usize, id: u32) -> ControlFlow<()> {
        self.failure = self.take(id).err();
        self.flow()
    }
}
