//! Damage to bytes: what disks, programs and people do to files.

use ssa_testkit::Random;

/// Numbers at which programs err.
const NUMBERS: [&str; 22] = [
    "0",
    "-1",
    "1",
    "2",
    "255",
    "65536",
    "2147483647",
    "2147483648",
    "4294967296",
    "99999999999",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1e308",
    "1e999",
    "-1e-999",
    "0.5",
    "NaN",
    "Infinity",
    "nan",
];

/// Values of another type.
const VALUES: [&str; 10] =
    ["null", "true", "[]", "{}", "\"\"", "\"\\u0000\"", "[[]]", "{\"a\":{}}", "''", "\"\\ud800\""];

const BYTES: [u8; 14] = *b"\x00\xff\x7f\x80\"\\{}[],\n'-";

/// Draws damages.
pub(crate) struct Mutator {
    random: Random,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.random.below(u32::try_from(bound).unwrap(), 1)[0] as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of the numbers or values, as a text.
    pub(crate) fn value(&mut self) -> &'static str {
        if self.below(3) == 0 { self.pick(&VALUES) } else { self.pick(&NUMBERS) }
    }

    /// Bytes with one to four damages.
    pub(crate) fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            self.damage(&mut bytes);
        }
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let length = (1 + self.below(32)).min(bytes.len() - at);
        let kind = self.below(if length == 0 { 2 } else { 12 });
        match kind {
            0 => {
                let inserted = (0..=self.below(16)).map(|_| self.pick(&BYTES)).collect::<Vec<_>>();
                bytes.splice(at..at, inserted);
            }
            1 => bytes.truncate(at),
            2 => bytes[at] ^= 1 << self.below(8),
            3 => bytes[at] = self.pick(&BYTES),
            4 => drop(bytes.drain(at..at + length)),
            5 => self.repeat(bytes, at, length),
            6 | 7 => self.overwrite_number(bytes, at),
            8..=10 => self.replace_token(bytes, at),
            // Another part of the same file.
            _ => {
                let from = self.below(bytes.len());
                let part = bytes[from..(from + length).min(bytes.len())].to_vec();
                bytes.splice(at..at + length, part);
            }
        }
    }

    /// A part many times, up to 64 KiB: nesting, long lists and long names.
    fn repeat(&mut self, bytes: &mut Vec<u8>, at: usize, length: usize) {
        let length = if self.below(2) == 0 { 1 } else { length };
        let times = 1 << self.below(17 - length.ilog2() as usize);
        let part = bytes[at..at + length].repeat(times);
        bytes.splice(at..at, part);
    }

    /// A binary number, little-endian.
    fn overwrite_number(&mut self, bytes: &mut [u8], at: usize) {
        let width = self.pick(&[1, 2, 4, 8]);
        let number = match self.below(6) {
            0 => u64::MAX,
            1 => u64::MAX >> 1,
            2 => 1 << self.below(64),
            3 => (1 << self.below(40)) - 1,
            4 => 0,
            _ => bytes.len() as u64,
        };
        let end = (at + width).min(bytes.len());
        bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
    }

    /// The number, word or string at a place, or the next one, becomes another value.
    fn replace_token(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
        let Some(start) = bytes[at..].iter().position(in_token).map(|offset| at + offset) else {
            return;
        };
        let start = bytes[..start].iter().rposition(|byte| !in_token(byte)).map_or(0, |at| at + 1);
        let end = bytes[start..].iter().position(|byte| !in_token(byte));
        let end = end.map_or(bytes.len(), |length| start + length);
        let quoted = start > 0 && bytes[start - 1] == b'"' && bytes.get(end) == Some(&b'"');
        let whole = if quoted && self.below(2) == 0 { start - 1..end + 1 } else { start..end };
        let value = self.value();
        bytes.splice(whole, value.bytes());
    }
}
