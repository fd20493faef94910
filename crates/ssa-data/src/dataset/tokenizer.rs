//! The common tokenizer of several corpora.

use std::path::{Path, PathBuf};

use crate::corpus::corpus_tokenizer;
use crate::{DataError, Result, Tokenizer};

/// Returns the tokenizer of all corpora. All must be the same, including the `named` one, which
/// applies to corpora without their own. `None` if there is no tokenizer.
///
/// # Errors
/// [`DataError`] names the corpus with a different tokenizer or without one; otherwise same as
/// [`corpus_tokenizer`].
pub fn common_tokenizer<'a>(
    corpora: impl IntoIterator<Item = &'a PathBuf>,
    named: Option<(String, Tokenizer)>,
) -> Result<Option<Tokenizer>> {
    let mut chosen = named;
    let mut without = None;
    for path in corpora {
        match (corpus_tokenizer(path)?, &chosen) {
            (None, _) => without = without.or(Some(path)),
            (Some(own), None) => chosen = Some((path.display().to_string(), own)),
            (Some(own), Some((name, chosen))) => check_same(path, &own, name, chosen)?,
        }
    }
    match (chosen, without) {
        (Some((_, tokenizer)), _) => Ok(Some(tokenizer)),
        (None, Some(path)) => Err(DataError::unknown_tokenizer(path)),
        (None, None) => Ok(None),
    }
}

fn check_same(path: &Path, own: &Tokenizer, name: &str, chosen: &Tokenizer) -> Result<()> {
    if own.sha256() == chosen.sha256() && own.eos() == chosen.eos() {
        return Ok(());
    }
    Err(DataError::other_tokenizer(path, own.vocab_size(), name, chosen.vocab_size()))
}
