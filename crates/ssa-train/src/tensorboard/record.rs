//! TFRecord framing.
//!
//! ```text
//! u64 length | u32 masked checksum of the length | data | u32 masked checksum of the data
//! ```

use crc::{CRC_32_ISCSI, Crc};

/// The CRC-32C (Castagnoli) polynomial.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Frames data as a record.
pub(super) fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_checksum(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_checksum(data).to_le_bytes());
    record
}

/// The checksum, rotated and offset as TFRecord requires, so that data may itself contain
/// checksums.
fn masked_checksum(data: &[u8]) -> u32 {
    CRC32C.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}
