//! Sources of kernels and everything that their compilation depends on.

use std::fmt::Write;

/// A macro of a compilation, `-DNAME=value`: sizes that a kernel is specialized for.
pub(crate) type Define = (&'static str, i64);

/// A CUDA header that several sources include.
#[derive(Debug)]
pub(crate) struct Header {
    /// Its name in `#include`.
    pub(crate) name: &'static str,
    /// CUDA C++.
    pub(crate) text: &'static str,
    /// The headers that the text includes.
    pub(crate) includes: &'static [&'static Header],
}

/// Types, conversions, vector loads and reductions.
pub(crate) static COMMON: Header =
    Header { name: "common.cuh", text: include_str!("include/common.cuh"), includes: &[] };

/// Kernels that start before the kernel ahead of them has ended.
pub(crate) static DEPENDENT_LAUNCH: Header = Header {
    name: "dependent_launch.cuh",
    text: include_str!("include/dependent_launch.cuh"),
    includes: &[&COMMON],
};

/// The name of the generated header: constants and structs that the host shares with kernels.
pub(crate) const PARAMS: &str = "params.cuh";

/// The source of some kernels.
#[derive(Debug)]
pub struct Module {
    /// Name in messages and of the source file.
    pub(crate) name: &'static str,
    /// CUDA C++.
    pub(crate) source: &'static str,
    /// The headers that the source includes besides `common.cuh` and the generated `params.cuh`.
    pub(crate) headers: &'static [&'static Header],
    /// Rust constants that the source uses under the same names ([`constants!`]).
    pub(crate) constants: &'static [Define],
    /// Declarations of the Rust structs that the source uses, from `kernel!` and
    /// `device_struct!`.
    pub(crate) structs: &'static [fn() -> String],
    /// Sets of macros that are compiled ahead of time to check for errors and spilled registers.
    pub(crate) variants: &'static [&'static [Define]],
}

impl Module {
    /// Name and text of every header that the source can reach. Nothing else belongs to the key of
    /// the compiled module, so a change of one header leaves other modules in the cache.
    pub(super) fn header_texts(&self) -> Vec<(&'static str, String)> {
        let mut headers: Vec<&Header> = vec![&COMMON];
        let mut pending = self.headers.to_vec();
        while let Some(header) = pending.pop() {
            if headers.iter().all(|known| known.name != header.name) {
                headers.push(header);
                pending.extend(header.includes);
            }
        }
        headers.sort_by_key(|header| header.name);
        let texts = headers.into_iter().map(|header| (header.name, header.text.to_owned()));
        texts.chain([(PARAMS, self.params())]).collect()
    }

    /// The text of `params.cuh`.
    fn params(&self) -> String {
        let mut text = "// Generated from the declarations in Rust.\n#pragma once\n\
                        #include \"common.cuh\"\n"
            .to_owned();
        for (name, value) in self.constants {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "constexpr int {name} = {value};");
        }
        for declaration in self.structs {
            text.push_str(&declaration());
        }
        text
    }
}

/// A list of Rust constants for [`Module::constants`].
macro_rules! constants {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as i64)),*] };
}
pub(crate) use constants;
