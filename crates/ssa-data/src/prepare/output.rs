//! Writing the shards of a preparation.

use super::pipeline::{self, EncodedBatch, EncodedDocument};
use super::{PrepareOptions, PrepareProgress, Work};
use crate::shard::{ShardCount, TokenType};
use crate::{DataError, Manifest, Part, Position, Result, ShardWriter, Tokenizer};

/// Makes all shards from `start` on; returns the complete manifest.
pub(super) fn write(
    work: &Work,
    start: Position,
    manifest: Manifest,
    tokenizer: &Tokenizer,
    options: &PrepareOptions,
    report: &mut dyn FnMut(&PrepareProgress),
) -> Result<Manifest> {
    let resumed_bytes = work.bytes_before(start.source);
    let progress = PrepareProgress {
        bytes: resumed_bytes,
        total_bytes: work.bytes_before(work.sources.len()),
        resumed_bytes,
        documents: manifest.documents(),
        tokens: manifest.tokens(),
        shards: manifest.shards.len(),
    };
    report(&progress);
    let mut output = Output { options, manifest, shard: None, progress };
    pipeline::run(work, start, tokenizer, options, |batch| {
        output.take(&batch)?;
        report(&output.progress);
        Ok(())
    })?;
    output.finish()
}

struct Output<'a> {
    options: &'a PrepareOptions,
    manifest: Manifest,
    /// The shard being written; none between two.
    shard: Option<ShardWriter>,
    progress: PrepareProgress,
}

impl Output<'_> {
    fn take(&mut self, batch: &EncodedBatch) -> Result<()> {
        let token_type = TokenType::for_vocabulary(self.manifest.tokenizer.vocab_size);
        self.progress.bytes = batch.read;
        let mut rest = batch.bytes.as_slice();
        for document in &batch.documents {
            let (bytes, after) = rest.split_at(document.tokens as usize * token_type.bytes());
            rest = after;
            self.count(document);
            if document.tokens > 0 {
                self.push(document, bytes, token_type)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, &EncodedDocument { position, tokens, text_bytes }: &EncodedDocument) {
        let source = &mut self.manifest.sources[position.source];
        if tokens == 0 {
            source.empty_documents += 1;
        } else {
            source.documents += 1;
            source.text_bytes += text_bytes;
            source.tokens += u64::from(tokens);
            self.progress.documents += 1;
            self.progress.tokens += u64::from(tokens);
        }
    }

    fn push(&mut self, document: &EncodedDocument, bytes: &[u8], token_type: TokenType) -> Result<()> {
        let shard = match &mut self.shard {
            Some(shard) => shard,
            none => {
                let name = self.options.part.shard_name(self.manifest.shards.len());
                none.insert(ShardWriter::create(&self.options.output.join(name), token_type)?)
            }
        };
        shard.push_encoded(bytes, &[document.tokens])?;
        if shard.tokens() >= self.options.shard_tokens {
            let Position { source, record } = document.position;
            self.end_shard(Some(Position { source, record: record + 1 }))?;
        }
        Ok(())
    }

    /// Ends the shard, if there is one, and notes where to go on.
    fn end_shard(&mut self, resume_at: Option<Position>) -> Result<()> {
        if let Some(shard) = self.shard.take() {
            let name = self.options.part.shard_name(self.manifest.shards.len());
            let (documents, tokens) = (shard.documents() as u64, shard.tokens());
            let [bin, idx] = shard.finish()?;
            self.progress.shards += 1;
            self.manifest.shards.push(ShardCount { name, documents, tokens, bin, idx });
        }
        self.manifest.resume_at = resume_at;
        self.manifest.write(&self.options.output)
    }

    fn finish(mut self) -> Result<Manifest> {
        let written = self.shard.is_some() || !self.manifest.shards.is_empty();
        // With many parts, one may well have got nothing.
        if !written && self.options.part == Part::WHOLE {
            return Err(DataError::NoText);
        }
        self.end_shard(None)?;
        Ok(self.manifest)
    }
}
