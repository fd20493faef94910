//! `cargo fuzz run --features libfuzzer chat_template`

#![no_main]

use std::sync::LazyLock;

use ssa_fuzz::{CHAT_TEMPLATE, Place};

static PLACE: LazyLock<Place> = LazyLock::new(|| Place::new(&CHAT_TEMPLATE));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(PLACE.read(bytes)));
