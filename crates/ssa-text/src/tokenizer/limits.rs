//! Limits for a `tokenizer.json`.

use serde_json::Value;

/// Limit of ids: every model has an embedding row per id.
const MAX_VOCAB_SIZE: usize = 1 << 24;
/// Limit of the product of all counted repetitions in an expression (`{1,3}`), the factor by which
/// compilation can enlarge it.
const MAX_REPETITIONS: u64 = 100_000;

/// Refuses definitions that would need memory out of proportion to the file.
pub(super) fn check(definition: &Value) -> Result<(), String> {
    match definition {
        Value::Object(object) => {
            for (key, value) in object {
                match value.as_str() {
                    Some(pattern) if key == "Regex" => check_expression(pattern)?,
                    _ if key != "vocab" && key != "merges" => check(value)?,
                    _ => {}
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(check),
        _ => Ok(()),
    }
}

/// Refuses ids beyond the limit.
pub(super) fn check_size(vocab_size: usize) -> Result<(), String> {
    if vocab_size <= MAX_VOCAB_SIZE {
        return Ok(());
    }
    Err(format!("its largest id is {}, but the limit is {}", vocab_size - 1, MAX_VOCAB_SIZE - 1))
}

fn check_expression(pattern: &str) -> Result<(), String> {
    let mut product = 1_u64;
    for (open, _) in pattern.match_indices('{') {
        // Not a class (\p{L}) or a character (\x{20}).
        let named = pattern[..open].ends_with(|c: char| c.is_ascii_alphabetic())
            && pattern[..open - 1].ends_with('\\');
        let Some(counts) = pattern[open + 1..].split_once('}').filter(|_| !named) else { continue };
        let largest =
            counts.0.split(',').filter_map(|count| count.trim().parse::<u64>().ok()).max();
        product = product.saturating_mul(largest.unwrap_or(1).max(1));
    }
    if product <= MAX_REPETITIONS {
        return Ok(());
    }
    Err(format!(
        "an expression repeats its parts {product} times, but the limit is {MAX_REPETITIONS}: \
         {}",
        pattern.chars().take(60).collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_multiply_and_classes_do_not_count() {
        for (pattern, allowed) in [
            (r"\p{N}{1,3}|\p{Lu}{2}", true),
            (r"\x{1F600}[\x{10000}-\x{10FFFF}]", true),
            ("a{100000}", true),
            ("a{100001}", false),
            ("(?=x)((a{1000}){1000}){1000}", false),
            ("a{99999999999999999999}", true),
        ] {
            match check_expression(pattern) {
                Ok(()) => assert!(allowed, "{pattern}"),
                Err(cause) => assert!(!allowed && cause.contains(pattern), "{cause}"),
            }
        }
    }
}
