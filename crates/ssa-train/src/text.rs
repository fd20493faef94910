//! From the text that `[data]` names to tokens.

use ssa_data::{
    Document, PackOptions, PackedRows, Remainder, Split, pack, read_documents, snapshot, split,
};

use crate::{Result, TrainPlan};

impl TrainPlan {
    /// Reads the text to train on and the text held out: from `data.paths` or the text built into
    /// the program, split by `data.held_out_fraction` unless `data.valid_paths` names the held-out
    /// text. (Corpora of shards are no text: [`open_data`](Self::open_data) serves both.)
    ///
    /// # Errors
    /// [`TrainError::Data`](crate::TrainError::Data) names the file, or says that there is too
    /// little text.
    pub fn text(&self) -> Result<Split> {
        let data = self.data();
        let documents =
            if data.paths.is_empty() { snapshot()? } else { read_documents(&data.paths)? };
        if data.valid_paths.is_empty() {
            Ok(split(documents, data.held_out_fraction, self.seed())?)
        } else {
            Ok(Split { train: documents, held_out: read_documents(&data.valid_paths)? })
        }
    }

    /// Packs documents into the rows to train on, by `data.packing`.
    ///
    /// # Errors
    /// [`TrainError::Data`](crate::TrainError::Data) if there is not enough text for one row, or if
    /// the tokenizer refuses a document.
    pub fn training_rows(&self, documents: &[Document]) -> Result<PackedRows> {
        Ok(pack(
            &self.tokenizer().encode_documents(documents)?,
            self.tokenizer().eos(),
            &self.training_options(),
        )?)
    }

    pub(crate) fn training_options(&self) -> PackOptions {
        PackOptions {
            sequence_length: self.sequence_length(),
            packing: self.config().data.packing,
            seed: self.seed(),
            remainder: Remainder::Drop,
        }
    }
}
