//! Bits per byte: a tokenizer-independent measure of prediction.
//!
//! In this project it is always
//!
//! ```text
//! bits per byte = (sum of -log2 p over all target tokens) / (bytes of text)
//! ```
//!
//! The first token of a document is never a target; its end-of-document token always is, and counts
//! in the sum but not in the bytes. With one token per byte a document therefore has as many
//! targets as bytes, so a measurement on some rows may divide by their number of targets.

use ssa_text::{ByteTokenizer, Document};

/// Returns the bits per byte of `text_bytes` bytes whose targets have a total loss of `nll` nats.
/// NaN or infinite for no bytes.
pub fn bits_per_byte(nll: f64, text_bytes: f64) -> f64 {
    nll / std::f64::consts::LN_2 / text_bytes
}

/// Returns the bits per byte of the held-out documents for a unigram model of bytes.
///
/// The frequencies of bytes and ends of document in `train` are smoothed by adding one to each
/// count. A trained model must be below this value. NaN if no held-out document has text.
pub fn unigram_bits_per_byte(train: &[Document], held_out: &[Document]) -> f64 {
    let mut counts = [1_u64; ByteTokenizer::VOCAB_SIZE];
    for document in with_text(train) {
        document.text.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
        counts[ByteTokenizer::EOS as usize] += 1;
    }
    let total = counts.iter().sum::<u64>() as f64;
    let nats = counts.map(|count| -(count as f64 / total).ln());

    let (mut nll, mut bytes) = (0.0, 0);
    for document in with_text(held_out) {
        nll += document.text[1..].iter().map(|&byte| nats[usize::from(byte)]).sum::<f64>();
        nll += nats[ByteTokenizer::EOS as usize];
        bytes += document.text.len();
    }
    bits_per_byte(nll, bytes as f64)
}

/// As in packing, documents without text are ignored.
fn with_text(documents: &[Document]) -> impl Iterator<Item = &Document> {
    documents.iter().filter(|document| !document.text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(texts: &[&[u8]]) -> Vec<Document> {
        texts.iter().map(|text| Document { name: "x".to_owned(), text: text.to_vec() }).collect()
    }

    #[test]
    fn one_nat_per_byte_is_log2_e_bits() {
        assert!((bits_per_byte(10.0, 10.0) - std::f64::consts::LOG2_E).abs() < 1e-15);
    }

    #[test]
    fn without_training_text_every_target_costs_log2_257() {
        let value = unigram_bits_per_byte(&[], &documents(&[b"abc", b"", b"\xff"]));
        assert!((value - 257_f64.log2()).abs() < 1e-12, "{value}");
    }

    #[test]
    fn counts_are_smoothed_and_ends_count() {
        // Smoothed counts: a 4, b 2, end 2, 254 others 1: 262 in all. Targets of "aab": a, b and
        // the end.
        let value = unigram_bits_per_byte(&documents(&[b"aaab"]), &documents(&[b"aab"]));
        let expected = -((4.0 / 262.0_f64).log2() + 2.0 * (2.0 / 262.0_f64).log2()) / 3.0;
        assert!((value - expected).abs() < 1e-12, "{value} {expected}");
    }

    #[test]
    fn no_held_out_text_has_no_value() {
        assert!(unigram_bits_per_byte(&documents(&[b"a"]), &documents(&[b""])).is_nan());
    }
}
