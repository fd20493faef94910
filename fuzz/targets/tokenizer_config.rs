//! `cargo fuzz run --features libfuzzer tokenizer_config`

#![no_main]

use std::sync::LazyLock;

use ssa_fuzz::{Place, TOKENIZER_CONFIG};

static PLACE: LazyLock<Place> = LazyLock::new(|| Place::new(&TOKENIZER_CONFIG));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(PLACE.read(bytes)));
