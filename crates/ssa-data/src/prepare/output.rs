//! Writing the shards of a preparation.

use ssa_text::Tokenizer;

use super::pipeline::{self, EncodedBatch, EncodedDocument};
use super::state::{Position, Preparation};
use super::{PrepareOptions, PrepareProgress, Work};
use crate::file_sum::FileSum;
use crate::shard::{Manifest, Part, ShardFiles, ShardSum, ShardWriter, TokenType};
use crate::{DataError, Result};

/// Writes all missing shards; returns the complete manifest.
pub(super) fn write(
    work: &Work,
    preparation: Preparation,
    tokenizer: &Tokenizer,
    options: &PrepareOptions,
    report: &mut dyn FnMut(&PrepareProgress),
) -> Result<Manifest> {
    let Preparation { resume_at: start, read, manifest, .. } = &preparation;
    let (start, read) = (*start, read.clone());
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
    let mut output = Output { options, preparation, shard: None, text_bytes: 0, progress };
    pipeline::run(work, start, read, tokenizer, options, |batch| {
        output.take(&batch)?;
        report(&output.progress);
        Ok(())
    })?;
    output.finish()
}

struct Output<'a> {
    options: &'a PrepareOptions,
    preparation: Preparation,
    /// The shard being written; `None` between two.
    shard: Option<ShardWriter>,
    /// Bytes of text in the current shard.
    text_bytes: u64,
    progress: PrepareProgress,
}

impl Output<'_> {
    fn take(&mut self, batch: &EncodedBatch) -> Result<()> {
        let token_type = TokenType::for_vocabulary(self.preparation.manifest.tokenizer.vocab_size);
        self.progress.bytes = batch.read;
        let mut rest = batch.bytes.as_slice();
        for document in &batch.documents {
            let (bytes, after) = rest.split_at(document.tokens as usize * token_type.bytes());
            rest = after;
            self.count(document);
            if document.tokens > 0 {
                self.push(document, bytes, &batch.read_sums)?;
            }
        }
        // Only now: a shard that ended in this batch must not include sources after its end.
        for (source, sum) in &batch.read_sums {
            self.preparation.manifest.sources[*source].sha256 = Some(sum.sha256.clone());
        }
        Ok(())
    }

    fn count(&mut self, &EncodedDocument { position, tokens, text_bytes }: &EncodedDocument) {
        let source = &mut self.preparation.manifest.sources[position.source];
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

    fn push(
        &mut self,
        document: &EncodedDocument,
        bytes: &[u8],
        read_sums: &[(usize, FileSum)],
    ) -> Result<()> {
        let shard = match &mut self.shard {
            Some(shard) => shard,
            none => {
                let name = self.options.part.shard_name(self.preparation.manifest.shards.len());
                let vocab_size = self.preparation.manifest.tokenizer.vocab_size;
                let token_type = TokenType::for_vocabulary(vocab_size);
                none.insert(ShardWriter::create(&self.options.output.join(name), token_type)?)
            }
        };
        // Documents have fewer than 2^31 bytes.
        shard.push_encoded(bytes, Some(document.text_bytes as u32))?;
        self.text_bytes += document.text_bytes;
        if shard.tokens() >= self.options.shard_tokens {
            let Position { source, record } = document.position;
            self.end_shard()?;
            self.preparation.resume_at = Position { source, record: record + 1 };
            for (number, sum) in read_sums.iter().filter(|(number, _)| *number < source) {
                self.preparation.manifest.sources[*number].sha256 = Some(sum.sha256.clone());
            }
            let read = read_sums.iter().find(|(number, _)| *number == source);
            self.preparation.read = read.map(|(_, sum)| sum.clone());
            self.preparation.write(&self.options.output)?;
        }
        Ok(())
    }

    /// Ends the current shard, if there is one.
    fn end_shard(&mut self) -> Result<()> {
        if let Some(shard) = self.shard.take() {
            let shards = &mut self.preparation.manifest.shards;
            let name = self.options.part.shard_name(shards.len());
            let (documents, tokens) = (shard.documents() as u64, shard.tokens());
            let text_bytes = std::mem::take(&mut self.text_bytes);
            let ShardFiles { bin, idx, bytes } = shard.finish()?;
            shards.push(ShardSum { name, documents, tokens, text_bytes, bin, idx, bytes });
            self.progress.shards += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Manifest> {
        self.end_shard()?;
        // With many parts, one may have no documents.
        if self.preparation.manifest.shards.is_empty() && self.options.part == Part::WHOLE {
            return Err(DataError::no_text());
        }
        self.preparation.complete(&self.options.output)
    }
}
