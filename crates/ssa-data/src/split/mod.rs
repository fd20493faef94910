//! Holding documents out of training.

use rand::seq::SliceRandom;
use ssa_text::{Document, text_bytes};

use crate::random::{Purpose, generator};
use crate::{DataError, Result};

/// With at least this many documents, whole documents are held out.
pub(crate) const BY_DOCUMENT_FROM: usize = 10;

/// A corpus in two parts, each in corpus order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The training documents; at least one byte.
    pub train: Vec<Document>,
    /// The held-out documents; at least one byte.
    pub held_out: Vec<Document>,
}

/// Holds out about `held_out_fraction` of the bytes of text. The same documents, fraction and seed
/// give the same split.
///
/// With at least ten documents that have text, whole documents are held out, so that no part of a
/// held-out text is seen in training. They are taken in a seeded random order until the wanted
/// number of bytes is reached. A document that would exceed twice that number is skipped; if none
/// is small enough, the smallest one is held out. At least one document stays on each side.
///
/// With fewer documents, the end of each becomes a separate held-out document, `<name>#held-out`.
/// The cut is moved back to a UTF-8 character boundary; a document of one byte stays in training.
/// The seed has no effect.
///
/// # Errors
/// [`DataError::Setting`] if the fraction is not strictly between 0 and 1; [`DataError::Amount`] if
/// there is too little text for both sides.
pub fn split(documents: Vec<Document>, held_out_fraction: f64, seed: u64) -> Result<Split> {
    if !(held_out_fraction > 0.0 && held_out_fraction < 1.0) {
        let expected = "a number between 0 and 1, both excluded";
        return Err(DataError::setting("held_out_fraction", expected, held_out_fraction));
    }
    let bytes = text_bytes(&documents);
    if bytes == 0 {
        return Err(DataError::no_text());
    }
    let with_text = documents.iter().filter(|document| !document.text.is_empty()).count();
    if with_text >= BY_DOCUMENT_FROM {
        let wanted = (bytes as f64 * held_out_fraction).round() as usize;
        return Ok(by_document(documents, wanted.max(1), seed));
    }
    let count = documents.len();
    let split = by_tail(documents, held_out_fraction);
    if split.held_out.is_empty() {
        let cause =
            format!("{bytes} bytes of text in {count} documents are too little to hold a part out");
        return Err(DataError::amount(cause, "add text, at least one document of two bytes"));
    }
    Ok(split)
}

fn by_document(documents: Vec<Document>, wanted: usize, seed: u64) -> Split {
    let held_out = choose(&documents, wanted, seed);
    let mut split = Split { train: Vec::new(), held_out: Vec::new() };
    for (document, held_out) in documents.into_iter().zip(held_out) {
        if held_out { &mut split.held_out } else { &mut split.train }.push(document);
    }
    split
}

/// Decides for each document whether it is held out. Documents without text are not.
fn choose(documents: &[Document], wanted: usize, seed: u64) -> Vec<bool> {
    let bytes = |index: usize| documents[index].text.len();
    let mut order: Vec<usize> = (0..documents.len()).filter(|&index| bytes(index) > 0).collect();
    order.shuffle(&mut generator(seed, Purpose::HeldOut, 0));

    let mut chosen = Vec::new();
    let mut reached = 0;
    for &index in &order {
        if reached >= wanted || chosen.len() + 1 == order.len() {
            break;
        }
        if reached + bytes(index) <= 2 * wanted {
            chosen.push(index);
            reached += bytes(index);
        }
    }
    if chosen.is_empty() {
        chosen.extend(order.into_iter().min_by_key(|&index| bytes(index)));
    }
    let mut held_out = vec![false; documents.len()];
    chosen.into_iter().for_each(|index| held_out[index] = true);
    held_out
}

fn by_tail(documents: Vec<Document>, fraction: f64) -> Split {
    let mut split = Split { train: Vec::new(), held_out: Vec::new() };
    for mut document in documents {
        if document.text.len() >= 2 {
            let tail = document.text.split_off(cut(&document.text, fraction));
            split
                .held_out
                .push(Document { name: format!("{}#held-out", document.name), text: tail });
        }
        split.train.push(document);
    }
    split
}

/// The start of the held-out end of a text of at least two bytes: neither side is empty.
fn cut(text: &[u8], fraction: f64) -> usize {
    let held_out = (text.len() as f64 * fraction).round() as usize;
    let cut = text.len() - held_out.clamp(1, text.len() - 1);
    let begins_character = |&at: &usize| text[at] & 0b1100_0000 != 0b1000_0000;
    // A character has at most three continuation bytes; text that is not UTF-8 is cut exactly at
    // the fraction.
    (cut.saturating_sub(3).max(1)..=cut).rev().find(begins_character).unwrap_or(cut)
}

#[cfg(test)]
mod tests;
