//! `cargo fuzz run --features libfuzzer config`

#![no_main]

use std::sync::LazyLock;

use ssa_fuzz::{CONFIG, Place};

static PLACE: LazyLock<Place> = LazyLock::new(|| Place::new(&CONFIG));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(PLACE.read(bytes)));
