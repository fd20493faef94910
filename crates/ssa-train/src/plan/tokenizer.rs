//! Which tokenizer made, or will make, the tokens to train on.

use std::path::Path;

use ssa_data::{DataError, Tokenizer, corpus_tokenizer, load_tokenizer};

use crate::config::{ConfigError, DataSection};

/// The tokenizer of all data: the one that the corpora were made with, which must be one and the
/// same, else `data.tokenizer`, else bytes.
pub(super) fn choose_tokenizer(data: &DataSection) -> Result<Tokenizer, ConfigError> {
    let named = data.tokenizer.as_deref().map(|path| load_tokenizer(path, None)).transpose()?;
    let mut chosen = named.map(|tokenizer| ("data.tokenizer".to_owned(), tokenizer));
    let mut without = None;
    let corpora = data.corpora.iter().map(|corpus| &corpus.path).chain(&data.valid_corpora);
    for path in corpora {
        match (corpus_tokenizer(path)?, &chosen) {
            (None, _) => without = without.or(Some(path)),
            (Some(own), None) => chosen = Some((path.display().to_string(), own)),
            (Some(own), Some((name, chosen))) => check_same(path, &own, name, chosen)?,
        }
    }
    match (chosen, without) {
        (Some((_, tokenizer)), _) => Ok(tokenizer),
        (None, Some(path)) => Err(DataError::unknown_tokenizer(path).into()),
        (None, None) => Ok(Tokenizer::Bytes),
    }
}

fn check_same(
    path: &Path,
    own: &Tokenizer,
    name: &str,
    chosen: &Tokenizer,
) -> Result<(), DataError> {
    if own.sha256() == chosen.sha256() && own.eos() == chosen.eos() {
        return Ok(());
    }
    Err(DataError::other_tokenizer(path, own.vocab_size(), name, chosen.vocab_size()))
}
