//! `cargo fuzz run --features libfuzzer safetensors`

#![no_main]

use std::sync::LazyLock;

use ssa_fuzz::{Place, SAFETENSORS};

static PLACE: LazyLock<Place> = LazyLock::new(|| Place::new(&SAFETENSORS));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(PLACE.read(bytes)));
