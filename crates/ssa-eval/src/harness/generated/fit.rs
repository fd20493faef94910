//! The largest context that fits into a number of tokens.

/// Steps that interpolate; after them, bisection bounds the number of steps.
const INTERPOLATIONS: usize = 6;

/// The most units, of which `tokens` says at most `length`; `Err` has the tokens of none, if even
/// that is too much.
///
/// A unit takes at least a token. Tokens grow almost linearly with units, so few steps suffice.
/// `tokens` need not be monotonic: the result fits in any case.
pub(super) fn most_units<E>(
    length: usize,
    mut tokens: impl FnMut(usize) -> Result<usize, E>,
) -> Result<Result<usize, usize>, E> {
    let (mut fits, mut fits_tokens) = (0, tokens(0)?);
    if fits_tokens > length {
        return Ok(Err(fits_tokens));
    }
    let mut next = 16;
    let (mut exceeds, mut exceeds_tokens) = loop {
        let count = tokens(next)?;
        if count > length || next > length {
            break (next, count.max(length + 1));
        }
        (fits, fits_tokens) = (next, count);
        next *= 2;
    };
    let mut steps = 0;
    while exceeds - fits > 1 {
        let middle = match steps < INTERPOLATIONS {
            true => {
                let share = (length - fits_tokens) as f64 / (exceeds_tokens - fits_tokens) as f64;
                fits + ((exceeds - fits) as f64 * share) as usize
            }
            false => fits + (exceeds - fits) / 2,
        };
        let middle = middle.clamp(fits + 1, exceeds - 1);
        let count = tokens(middle)?;
        match count > length {
            true => (exceeds, exceeds_tokens) = (middle, count),
            false => (fits, fits_tokens) = (middle, count),
        }
        steps += 1;
    }
    Ok(Ok(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_is_found_in_few_steps() {
        for (fixed, per_unit) in [(10, 1), (100, 37), (0, 3), (7, 90)] {
            for length in [fixed, fixed + 1, 600, 32_768] {
                let mut steps = 0;
                let tokens = |units: usize| {
                    steps += 1;
                    // Not quite linear.
                    Ok::<_, ()>(fixed + units * per_unit + units / 7)
                };
                let found = most_units(length, tokens).unwrap().unwrap();
                let size = |units: usize| fixed + units * per_unit + units / 7;
                assert!(size(found) <= length && size(found + 1) > length, "{found} of {length}");
                assert!(steps < 24, "{steps} steps");
            }
        }
        assert_eq!(most_units(9, |_| Ok::<_, ()>(10)), Ok(Err(10)));
        assert_eq!(most_units(9, |_| Err::<usize, _>("no")), Err("no"));
    }
}
