//! Event files are read back by a decoder that shares no code with the writer: a bitwise checksum,
//! and a reader of the wire format by field numbers.

use std::collections::BTreeMap;

use super::*;
use crate::measurements::tests::measured;
use crate::metrics::tests::step;

/// CRC-32C by definition.
fn checksum(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn masked(data: &[u8]) -> [u8; 4] {
    let crc = checksum(data);
    crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// The data of all records.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_at(8);
        let (length_check, rest) = rest.split_at(4);
        assert_eq!(length_check, masked(length));
        let (data, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        let (data_check, rest) = rest.split_at(4);
        assert_eq!(data_check, masked(data));
        records.push(data);
        bytes = rest;
    }
    records
}

#[derive(Debug, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
    Float(f32),
}

impl<'a> Field<'a> {
    fn bytes(&self) -> &'a [u8] {
        let Field::Bytes(bytes) = self else { panic!("{self:?} has no bytes") };
        bytes
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let mut take = |count: usize| {
            let (taken, rest) = bytes.split_at(count);
            bytes = rest;
            taken
        };
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut bytes)),
            1 => Field::Double(f64::from_le_bytes(take(8).try_into().unwrap())),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (taken, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(taken)
            }
            5 => Field::Float(f32::from_le_bytes(take(4).try_into().unwrap())),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

/// Step and scalars of every summary. Also checks the first two records.
fn summaries(path: &Path, first_step: u64) -> Vec<(u64, BTreeMap<String, f32>)> {
    let bytes = fs::read(path).unwrap();
    let events: Vec<_> = records(&bytes).into_iter().map(fields).collect();
    let now = since_epoch().as_secs_f64();
    for event in &events {
        let (1, Field::Double(wall_time)) = event[0] else { panic!("{event:?}") };
        assert!((now - wall_time).abs() < 60.0, "{wall_time}");
    }
    assert_eq!(events[0][1..], [(2, Field::Varint(0)), (3, Field::Bytes(b"brain.Event:2"))]);
    assert_eq!(events[1][1..], [(2, Field::Varint(first_step)), (7, Field::Bytes(&[8, 1]))]);
    let scalar = |value: &(u64, Field<'_>)| {
        let parts = fields(value.1.bytes());
        let (1, 2, Field::Float(number)) = (parts[0].0, parts[1].0, &parts[1].1) else {
            panic!("{parts:?}")
        };
        (String::from_utf8(parts[0].1.bytes().to_vec()).unwrap(), *number)
    };
    let summary = |event: &Vec<(u64, Field<'_>)>| {
        let [_, (2, Field::Varint(step)), (5, Field::Bytes(summary))] = event[..] else {
            panic!("{event:?}")
        };
        (step, fields(summary).iter().map(scalar).collect())
    };
    events[2..].iter().map(summary).collect()
}

#[test]
fn event_files_hold_every_number() {
    assert_eq!(checksum(b"123456789"), 0xe306_9283, "the decoder itself");
    let directory = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(directory.path(), 1).unwrap();
    writer.write(&step(1), &Measurements::default()).unwrap();
    writer.write(&step(300), &measured()).unwrap();

    let summaries = summaries(writer.file.path(), 1);
    assert_eq!(summaries.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 300]);
    let (first, second) = (&summaries[0].1, &summaries[1].1);
    for (tag, value) in [
        ("train/loss", 5.5),
        ("train/cross_entropy", 5.0),
        ("train/alignment", 0.05),
        ("train/effective_alpha", 10.0),
        ("train/full_streams", 1.0),
        ("train/z_loss", 30.0),
        ("train_alignment/layer_00", 0.04),
        ("train_alignment/layer_01", 0.06),
        ("optimizer/learning_rate", 1e-3),
        ("optimizer/grad_norm", 1.5),
        ("speed/tokens_per_second", 4096.0),
        ("speed/tflops", 0.5),
        ("speed/mfu", 0.25),
    ] {
        assert_eq!((first[tag], second[tag]), (value, value), "{tag}");
    }
    assert_eq!(first.len(), 16);
    for (tag, value) in [
        ("probe/attention_sparsity/full", 0.5),
        ("probe/entropy_bits/sparse", 3.0),
        ("probe/full_streams", 0.5),
        ("probe/kl_full_sparse", 0.01),
        ("probe_attention_sparsity/layer_01/full", 0.75),
        ("probe_distance/layer_00/sparse", 0.1),
        ("validation/bits_per_byte/full", 2.0),
        ("validation/bits_per_byte/sparse", 2.25),
        ("validation/nats_per_token/full", 1.5),
        ("validation/kl_full_sparse", 0.02),
        ("tasks/accuracy", 0.625),
    ] {
        assert_eq!(second[tag], value, "{tag}");
    }
    for described in ["probe/tokens", "validation/targets", "validation/best", "tasks/questions"] {
        assert!(!second.contains_key(described), "{described}");
    }
}

#[test]
fn numbers_of_any_kind_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(directory.path(), 1).unwrap();
    let mut metrics = step(i64::MAX as usize);
    (metrics.loss, metrics.grad_norm) = (f64::NAN, f64::INFINITY);
    metrics.corpus_epochs = vec![0.5, 2.0];
    writer.write(&metrics, &Measurements::default()).unwrap();
    let (step, scalars) = summaries(writer.file.path(), 1).remove(0);
    assert_eq!(step, i64::MAX as u64);
    assert_eq!((scalars["data_epochs/corpus_00"], scalars["data_epochs/corpus_01"]), (0.5, 2.0));
    assert!(scalars["train/loss"].is_nan() && scalars["optimizer/grad_norm"] == f32::INFINITY);
}

#[test]
fn every_session_has_its_file_and_foreign_files_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (run, path) = (directory.path(), directory.path().join("tensorboard"));
    remove(run).unwrap();
    let first = EventWriter::create(run, 1).unwrap();
    let second = EventWriter::create(run, 7).unwrap();
    assert!(first.file.path() < second.file.path());
    assert!(summaries(second.file.path(), 7).is_empty());
    fs::write(path.join("notes.txt"), "x").unwrap();
    remove(run).unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    fs::remove_file(path.join("notes.txt")).unwrap();
    remove(run).unwrap();
    assert!(!path.exists());
}
