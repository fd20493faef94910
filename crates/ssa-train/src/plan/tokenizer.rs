//! Which tokenizer made, or will make, the tokens to train on.

use std::path::Path;

use ssa_data::{BYTES, DataError, Tokenizer, corpus_tokenizer};

use crate::config::{ConfigError, DataSection};

/// The tokenizer of all data: the one that the corpora were made with, which must be one and the
/// same, else `data.tokenizer`, else bytes.
pub(super) fn choose_tokenizer(data: &DataSection) -> Result<Tokenizer, ConfigError> {
    let named = data.tokenizer.as_deref().map(|path| Tokenizer::load(path, None)).transpose()?;
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
        (None, Some(path)) => Err(DataError::UnknownTokenizer { path: path.clone() }.into()),
        (None, None) => Ok(Tokenizer::load(Path::new(BYTES), None)?),
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
    Err(DataError::OtherTokenizer {
        path: path.to_owned(),
        vocab_size: own.vocab_size(),
        other: name.to_owned(),
        other_vocab_size: chosen.vocab_size(),
    })
}
