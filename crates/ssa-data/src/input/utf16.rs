//! Converts UTF-16 to UTF-8, and detects UTF-32.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

/// What some programs write at the start of UTF-8: not part of the text.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The byte order of a code unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

/// Bytes by which a text without a byte order mark is judged.
const JUDGED: usize = 32;

/// Detects UTF-16: by a byte order mark, or by zeros in every other byte of the first characters.
pub(super) fn detect(start: &[u8]) -> Option<ByteOrder> {
    match start {
        [0xff, 0xfe, 0, 0, ..] => None,
        [0xff, 0xfe, ..] => Some(ByteOrder::Little),
        [0xfe, 0xff, ..] => Some(ByteOrder::Big),
        [b'{' | b'[', 0, second, 0, ..] if *second != 0 => Some(ByteOrder::Little),
        [0, b'{' | b'[', 0, second, ..] if *second != 0 => Some(ByteOrder::Big),
        _ if is_padded(start, |unit: &[u8; 2]| unit[0] != 0 && unit[1] == 0) => {
            Some(ByteOrder::Little)
        }
        _ if is_padded(start, |unit: &[u8; 2]| unit[0] == 0 && unit[1] != 0) => {
            Some(ByteOrder::Big)
        }
        _ => None,
    }
}

/// Detects UTF-32: by a byte order mark, or by three zeros in each of the first characters.
pub(super) fn is_utf32(start: &[u8]) -> bool {
    start.starts_with(b"\xff\xfe\0\0")
        || start.starts_with(b"\0\0\xfe\xff")
        || is_padded(start, |unit: &[u8; 4]| unit[0] != 0 && unit[1..] == [0; 3])
        || is_padded(start, |unit: &[u8; 4]| unit[..3] == [0; 3] && unit[3] != 0)
}

/// Whether the first code units, several of them, are all of a form.
fn is_padded<const N: usize>(start: &[u8], form: impl Fn(&[u8; N]) -> bool) -> bool {
    let units = start[..start.len().min(JUDGED)].as_chunks().0;
    units.len() >= 4 && units.iter().all(form)
}

/// Reads UTF-16 without its byte order mark as UTF-8.
pub(super) struct Utf16 {
    reader: Box<dyn BufRead + Send>,
    order: ByteOrder,
    ready: VecDeque<u8>,
    /// The high surrogate of a pair.
    high: Option<u16>,
    started: bool,
}

impl Utf16 {
    pub(super) fn new(reader: Box<dyn BufRead + Send>, order: ByteOrder) -> Self {
        Self { reader, order, ready: VecDeque::new(), high: None, started: false }
    }

    /// The next code unit; `None` at the end.
    fn unit(&mut self) -> io::Result<Option<u16>> {
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "UTF-16 with half a character");
        let mut bytes = [0; 2];
        match self.reader.read(&mut bytes[..1])? {
            0 => return Ok(None),
            _ => self.reader.read_exact(&mut bytes[1..]).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => odd(),
                _ => error,
            })?,
        }
        Ok(Some(match self.order {
            ByteOrder::Little => u16::from_le_bytes(bytes),
            ByteOrder::Big => u16::from_be_bytes(bytes),
        }))
    }

    /// Decodes one character; false at the end.
    fn decode(&mut self) -> io::Result<bool> {
        let lone = || io::Error::new(io::ErrorKind::InvalidData, "unpaired UTF-16 surrogate");
        let Some(unit) = self.unit()? else {
            return if self.high.is_some() { Err(lone()) } else { Ok(false) };
        };
        let mark = !std::mem::replace(&mut self.started, true) && unit == 0xfeff;
        if mark {
            return Ok(true);
        }
        let units = match self.high.take() {
            Some(high) => vec![high, unit],
            None if (0xd800..0xdc00).contains(&unit) => {
                self.high = Some(unit);
                return Ok(true);
            }
            None => vec![unit],
        };
        let text = String::from_utf16(&units).map_err(|_| lone())?;
        self.ready.extend(text.as_bytes());
        Ok(true)
    }
}

impl Read for Utf16 {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready.len() < buffer.len() && self.decode()? {}
        self.ready.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(bytes: Vec<u8>) -> io::Result<String> {
        let order = detect(&bytes).unwrap();
        let mut text = String::new();
        Utf16::new(Box::new(Cursor::new(bytes)), order).read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn both_byte_orders_are_read_and_unpaired_surrogates_refused() {
        let text = "{\"text\": \"caf\u{e9} \u{1f600}\"}\n";
        let units = || text.encode_utf16();
        let little: Vec<u8> = units().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
        for bytes in [
            little.clone(),
            big.clone(),
            [b"\xff\xfe", &little[..]].concat(),
            [b"\xfe\xff", &big[..]].concat(),
        ] {
            assert_eq!(read(bytes).unwrap(), text);
        }
        let error = read(little[..little.len() - 1].to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "UTF-16 with half a character");
        for wrong in [&b"\xff\xfea\0b"[..], b"\xff\xfe\x00\xd8", b"\xff\xfe\x00\xd8a\0"] {
            assert!(matches!(
                read(wrong.to_vec()).unwrap_err().kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ));
        }
        assert_eq!(detect(b"\xff\xfe\0\0"), None, "UTF-32");
        assert_eq!(detect(b"plain"), None);
    }

    #[test]
    fn texts_without_a_mark_are_detected_too() {
        let text = "Some text, na\u{ef}ve.\n".repeat(3);
        let wide = |bytes: fn(u32) -> [u8; 4]| -> Vec<u8> {
            text.chars().flat_map(|character| bytes(character.into())).collect()
        };
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(
            [read(little.clone()).unwrap(), read(big.clone()).unwrap()],
            [text.clone(), text.clone()]
        );
        for bytes in [wide(u32::to_le_bytes), wide(u32::to_be_bytes)] {
            assert!(is_utf32(&bytes) && detect(&bytes).is_none());
        }
        for other in [text.as_bytes(), &little, &big, b"a\0b", b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"]
        {
            assert!(!is_utf32(other));
        }
        assert_eq!(detect(b"a\0b\0"), None, "too short to tell");
    }
}
