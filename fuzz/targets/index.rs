//! `cargo fuzz run --features libfuzzer index`

#![no_main]

use std::sync::LazyLock;

use ssa_fuzz::{INDEX, Place};

static PLACE: LazyLock<Place> = LazyLock::new(|| Place::new(&INDEX));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(PLACE.read(bytes)));
