//! From the `[data]` section to rows of tokens.

use ssa_data::{
    ByteTokenizer, Document, PackOptions, PackedRows, Remainder, Split, pack, read_documents, snapshot, split,
};

use crate::{Result, TrainPlan};

impl TrainPlan {
    /// Reads the text to train on and the text held out: from `data.paths` or the text built into the program, split by
    /// `data.held_out_fraction` unless `data.valid_paths` names the held-out text.
    ///
    /// # Errors
    /// [`TrainError::Data`](crate::TrainError::Data) names the file, or says that there is too little text.
    pub fn text(&self) -> Result<Split> {
        let data = &self.config().data;
        let documents = if data.paths.is_empty() { snapshot()? } else { read_documents(&data.paths)? };
        if data.valid_paths.is_empty() {
            Ok(split(documents, data.held_out_fraction, self.seed())?)
        } else {
            Ok(Split { train: documents, held_out: read_documents(&data.valid_paths)? })
        }
    }

    /// Packs documents into the rows to train on; the tokens after the last whole row are left out.
    ///
    /// # Errors
    /// [`TrainError::Data`](crate::TrainError::Data) if there is not enough text for one row.
    pub fn training_rows(&self, documents: &[Document]) -> Result<PackedRows> {
        let options = PackOptions {
            sequence_length: self.sequence_length(),
            seed: self.seed(),
            remainder: Remainder::Drop,
        };
        Ok(pack(&ByteTokenizer.encode_documents(documents), ByteTokenizer::EOS, &options)?)
    }
}
