//! Numbers as text.

/// Formats a count with its noun: `1 shard`, `2 shards`, `12,345 batches`. Only regular plurals.
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let number = grouped(count);
    match noun.strip_suffix('y') {
        _ if count == 1 => format!("{number} {noun}"),
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{number} {stem}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end)) => {
            format!("{number} {noun}es")
        }
        _ => format!("{number} {noun}s"),
    }
}

/// Formats an integer with commas between groups of three digits: `1,234,567`.
pub fn grouped(number: impl TryInto<u64>) -> String {
    group_digits(&number.try_into().unwrap_or(u64::MAX).to_string())
}

/// Adds commas between groups of three digits before the decimal point, and replaces a hyphen by a
/// minus sign.
pub(crate) fn group_digits(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |rest| ("\u{2212}", rest));
    let whole = number.find('.').unwrap_or(number.len());
    let mut out = String::from(sign);
    for (index, character) in number.char_indices() {
        if index > 0 && index < whole && (whole - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(character);
    }
    out
}

/// Formats three significant digits with k, M, G or T: `1.23 M`, with a non-breaking space.
pub fn abbreviated(value: f64) -> String {
    let units = [(1e12, "\u{a0}T"), (1e9, "\u{a0}G"), (1e6, "\u{a0}M"), (1e3, "\u{a0}k")];
    // A value that rounds up to the next unit takes that unit.
    let (factor, unit) =
        units.into_iter().find(|(factor, _)| value >= 0.9995 * factor).unwrap_or((1.0, ""));
    let scaled = value / factor;
    let decimals = match scaled {
        _ if factor == 1.0 && value.fract() == 0.0 => 0,
        s if s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{unit}")
}

/// Formats a size in binary units: `512 B`, `1.50 GiB`.
pub fn bytes(size: impl TryInto<u64>) -> String {
    let size = size.try_into().unwrap_or(u64::MAX);
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let mut scaled = size as f64 / 1024.0;
    let mut unit = 0;
    // A size that rounds up to 1024.00 also takes the next unit.
    while scaled >= 1023.995 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.2} {}", units[unit])
}

/// Formats a duration in its two largest units: `3.2 s`, `2 min 5 s`, `2 h 1 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    // The conversion saturates, so an infinite duration becomes a long one.
    let total = seconds.round() as u64;
    let (days, hours, minutes, seconds) =
        (total / 86_400, total / 3600 % 24, total / 60 % 60, total % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {seconds} s"),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{} d {hours} h", grouped(days)),
    }
}

/// Formats a duration with fixed width for countdowns: `00:02:33`, `1d 00:02:33`.
pub fn clock(seconds: f64) -> String {
    let total = seconds.round() as u64;
    let (days, hours, minutes, seconds) =
        (total / 86_400, total / 3600 % 24, total / 60 % 60, total % 60);
    let days = if days > 0 { format!("{days}d ") } else { String::new() };
    format!("{days}{hours:02}:{minutes:02}:{seconds:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_agree_with_their_number() {
        for (count, noun, text) in [
            (0, "shard", "0 shards"),
            (1, "shard", "1 shard"),
            (2, "shard", "2 shards"),
            (1_234_567, "batch", "1,234,567 batches"),
            (1, "entry", "1 entry"),
            (3, "entry", "3 entries"),
            (3, "key", "3 keys"),
        ] {
            assert_eq!(counted(count, noun), text);
        }
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1234), "1,234");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(group_digits("1234567.5678"), "1,234,567.5678");
        assert_eq!(group_digits("-12345"), "\u{2212}12,345");
        assert_eq!(group_digits("-123.4"), "\u{2212}123.4");
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (7.0, "7"),
            (999.9, "1.00 k"),
            (1_234.0, "1.23 k"),
            (18_400_000.0, "18.4 M"),
            (1.214e9, "1.21 G"),
        ];
        for (value, text) in cases {
            assert_eq!(abbreviated(value).replace('\u{a0}', " "), text);
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.50 KiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (3 << 30, "3.00 GiB"),
            (u64::MAX, "16.00 EiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn durations_read_like_speech() {
        for (seconds, text) in [
            (3.21, "3.2 s"),
            (59.99, "1 min 0 s"),
            (125.0, "2 min 5 s"),
            (7_300.0, "2 h 1 min"),
            (273_600.0, "3 d 4 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert!(duration(f64::INFINITY).ends_with(" h"));
        assert_eq!(clock(0.4), "00:00:00");
        assert_eq!(clock(7_265.0), "02:01:05");
        assert_eq!(clock(86_401.0), "1d 00:00:01");
    }
}
