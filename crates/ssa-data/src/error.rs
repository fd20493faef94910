//! The error type of this crate: each message names the file or setting, the cause and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use ssa_files::FileError;

/// Why text could not be turned into rows of tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No path was given.
    #[error("no path was given to read text from; name at least one file or directory")]
    NoPaths,
    /// A path names nothing.
    #[error(
        "{}: no such file or directory; check the spelling and the folder the path is relative to",
        path.display()
    )]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// A file or directory exists but the system refuses to read it.
    #[error("{}: cannot be read: {source}; check its permissions, or leave it out", path.display())]
    Unreadable {
        /// The path that failed, possibly below a directory that was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file named explicitly has no bytes.
    #[error("{}: the file is empty; leave it out, or check what should have written it", path.display())]
    EmptyFile {
        /// The path as given.
        path: PathBuf,
    },
    /// A file that holds text in another form.
    #[error(
        "{}: not plain text; turn it into a corpus with `ssa data prepare` and name the directory of that, or unpack it",
        path.display()
    )]
    NotPlainText {
        /// The path as given.
        path: PathBuf,
    },
    /// A directory holds nothing that counts as text.
    #[error(
        "{}: no text file in this directory; hidden entries, empty files and files with NUL bytes are \
         skipped, so name such a file itself if it is meant",
        path.display()
    )]
    EmptyDirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// The documents hold not one byte or token.
    #[error("the documents hold no text at all; add files with text")]
    NoText,
    /// There is too little text to have both a training and a held-out part.
    #[error(
        "{bytes} bytes of text in {documents} documents are too little to hold a part out; add text, at \
         least one document of two bytes"
    )]
    TooShortToSplit {
        /// Bytes of text in all documents.
        bytes: usize,
        /// Number of documents.
        documents: usize,
    },
    /// There is less text than one training row takes.
    #[error(
        "the corpus has {tokens} tokens (end-of-document tokens included) but one row needs {needed}; set \
         `sequence_length` to {tokens} or less, or add text"
    )]
    ShorterThanOneRow {
        /// Tokens there are.
        tokens: usize,
        /// Tokens of one row.
        needed: usize,
    },
    /// A setting is outside the range it is defined on.
    #[error("`{setting}` is {actual}, expected {expected}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// The range allowed.
        expected: &'static str,
        /// The value given.
        actual: String,
    },
    /// There are too few documents to hold whole ones out.
    #[error(
        "{source_name}: with {documents} document no whole document can be held out; name other text to evaluate on \
         (data.valid_corpora), or add documents"
    )]
    TooFewDocuments {
        /// What holds the documents.
        source_name: String,
        /// Number of documents.
        documents: usize,
    },
    /// A corpus has more documents, or a document more tokens, than the index of rows can number.
    #[error("{source_name}: {cause}; split the corpus into several, which `data.corpora` mixes")]
    TooLarge {
        /// What holds the documents.
        source_name: String,
        /// What is too large.
        cause: String,
    },
    /// Corpora of one mixture do not fit together.
    #[error("the corpora cannot be mixed: {cause}")]
    Mixture {
        /// What does not fit, and what would.
        cause: String,
    },
    /// The thread that reads ahead is gone.
    #[error(
        "the thread that reads batches ahead has ended: {cause}; this is a defect of the program, please report it"
    )]
    ReaderStopped {
        /// What is known.
        cause: String,
    },
    /// A `.bin` or `.idx` file does not hold what it should.
    #[error(
        "{}: {cause}; copy both files of the shard again, or make it again with `ssa data prepare`",
        path.display()
    )]
    DamagedShard {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A file or directory cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A directory holds no shard.
    #[error("{}: no shard (.bin and .idx files) in this directory; make some with `ssa data prepare`", path.display())]
    NoShards {
        /// The directory.
        path: PathBuf,
    },
    /// A file that would be overwritten.
    #[error("{}: exists already and is never overwritten; choose another directory, or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A tokenizer's file is not one.
    #[error("{}: no usable tokenizer: {cause}; get the file again from where the model comes from", path.display())]
    DamagedTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Nothing says which token ends a document.
    #[error("{}: {cause}; name the token with `eos_token`", path.display())]
    NoEosToken {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// What is missing.
        cause: String,
    },
    /// A chat template cannot be used, or refuses a conversation.
    #[error("{}: its chat template fails: {cause}; correct the template or leave the conversation out", path.display())]
    ChatTemplate {
        /// The tokenizer or template file.
        path: PathBuf,
        /// What the template engine said.
        cause: String,
    },
    /// The tokenizer cannot be trained.
    #[error("the tokenizer cannot be trained: {cause}; add text, or ask for another `vocab_size`")]
    TrainTokenizer {
        /// What the trainer said.
        cause: String,
    },
    /// A text is not UTF-8, and the tokenizer needs that.
    #[error(
        "not UTF-8 at byte {position}; convert the text (for example with iconv), or use the tokenizer `bytes`"
    )]
    TextNotUtf8 {
        /// The first byte that is not.
        position: usize,
    },
    /// A directory or data set holds nothing of a known kind.
    #[error(
        "{path}: nothing to read; .txt, .md, .jsonl and .ndjson files (also with .gz or .zst) and .parquet \
         files are taken, so name a file of another kind itself, or set `format` to text to take every file"
    )]
    NoSources {
        /// The directory or address.
        path: String,
    },
    /// A pattern is wrong or matches nothing.
    #[error("{pattern}: {cause}; check the pattern, and the folder it is relative to")]
    BadPattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The Hugging Face hub does not give a data set.
    #[error(
        "{name}: the Hugging Face hub gives no such data: {cause}; check the name and the network, and log in \
         (`hf auth login`, or set HF_TOKEN) for private data; files that you have already can be given by their paths"
    )]
    Hub {
        /// The name as given.
        name: String,
        /// What the client said.
        cause: String,
    },
    /// A file with documents is damaged or cut short.
    #[error("{name}: {cause}; get the file again, or leave it out")]
    DamagedSource {
        /// The file.
        name: String,
        /// What the decoder said.
        cause: String,
    },
    /// A document is larger than allowed.
    #[error(
        "{name}: a document (a line of JSON, a row, or a file of text) is larger than {limit} bytes; split it, or \
         raise `max_document_bytes` if that much memory can be spared"
    )]
    DocumentTooLarge {
        /// The file.
        name: String,
        /// The largest size allowed.
        limit: u64,
    },
    /// A Parquet file has no such column.
    #[error("{name}: no column `{column}`, only {columns}; name the right one with `{setting}`")]
    NoColumn {
        /// The file.
        name: String,
        /// The column asked for.
        column: String,
        /// The columns there are.
        columns: String,
        /// The setting that names the column.
        setting: &'static str,
    },
    /// A document cannot be read.
    #[error("{record}: {cause}")]
    BadRecord {
        /// The file, and the line or row in it.
        record: String,
        /// What is wrong, and the remedy.
        cause: String,
    },
    /// The preparation of a corpus was interrupted.
    #[error(
        "{}: the preparation of this corpus was interrupted; run the same `ssa data prepare` again to finish it",
        path.display()
    )]
    Unfinished {
        /// The file that keeps its state.
        path: PathBuf,
    },
    /// A corpus that several machines prepared is not all there.
    #[error("{}: not here, but other parts of the same corpus are; prepare that part too, or copy it here", path.display())]
    MissingPart {
        /// The manifest of the part.
        path: PathBuf,
    },
    /// An interrupted preparation cannot go on with other settings.
    #[error(
        "{}: this preparation was begun with {before}, not {now}; give the same again to go on, or choose another \
         output directory",
        path.display()
    )]
    PreparationChanged {
        /// The manifest.
        path: PathBuf,
        /// What it was begun with.
        before: String,
        /// What is given now.
        now: String,
    },
    /// Another program is preparing the same corpus.
    #[error("{}: another `ssa data prepare` is writing here; wait for it, or choose another output directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A `manifest.json` does not fit the corpus that it lies in.
    #[error(
        "{}: {cause}; copy the whole directory of the corpus again, or make it again with `ssa data prepare`",
        path.display()
    )]
    WrongManifest {
        /// The manifest.
        path: PathBuf,
        /// What does not fit.
        cause: String,
    },
    /// Nothing says what the tokens of a corpus mean.
    #[error(
        "{}: the corpus does not come with a tokenizer; name the one that made it as data.tokenizer (`bytes`, a \
         tokenizer.json, or a directory with one)",
        path.display()
    )]
    UnknownTokenizer {
        /// The corpus.
        path: PathBuf,
    },
    /// A corpus was made with another tokenizer than the rest of the data.
    #[error(
        "{}: made with another tokenizer (vocabulary of {vocab_size}) than {other} (vocabulary of {other_vocab_size}); \
         prepare all data with one tokenizer",
        path.display()
    )]
    OtherTokenizer {
        /// The corpus.
        path: PathBuf,
        /// Size of its vocabulary.
        vocab_size: usize,
        /// What the other tokenizer belongs to.
        other: String,
        /// Size of the other vocabulary.
        other_vocab_size: usize,
    },
    /// A token id is not in the vocabulary.
    #[error(
        "token {id} does not exist in a vocabulary of {vocab_size}; decode with the tokenizer that made the \
         tokens"
    )]
    UnknownToken {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A corpus snapshot cannot be decoded.
    #[error(
        "the corpus snapshot is damaged: {cause}; restore crates/ssa-data/corpus/snapshot.jsonl.gz from \
         version control and build again"
    )]
    CorruptSnapshot {
        /// What the decoder met.
        cause: String,
    },
    /// A document cannot be stored as JSON text.
    #[error("{name}: not UTF-8, which a snapshot cannot store; convert the file or exclude it")]
    NotUtf8 {
        /// Name of the document.
        name: String,
    },
    /// A corpus snapshot cannot be written.
    #[error(
        "the corpus snapshot cannot be written: {source}; check the free space and permissions there"
    )]
    SnapshotWrite {
        /// What the system said.
        source: io::Error,
    },
}

impl DataError {
    /// The error of a path that could not be opened.
    pub(crate) fn from_open(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.to_owned() },
            _ => Self::Unreadable { path: path.to_owned(), source },
        }
    }

    pub(crate) fn setting(
        setting: &'static str,
        expected: &'static str,
        actual: impl ToString,
    ) -> Self {
        Self::Setting { setting, expected, actual: actual.to_string() }
    }
}
