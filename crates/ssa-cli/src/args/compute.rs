//! `--threads` and `--device`, shared by all verbs that compute.

use std::fmt;
use std::str::FromStr;

use clap::Args;

/// Above the number of cores of any machine.
const MAX_THREADS: usize = 1024;

/// Threads, for verbs that use only the CPU.
#[derive(Clone, Debug, Args)]
pub(crate) struct ThreadsArgs {
    /// CPU threads; all cores by default. Results do not depend on this.
    #[arg(long, display_order = 100, value_name = "N", value_parser = parse_threads)]
    pub(crate) threads: Option<usize>,
}

/// Threads and device, for verbs that can use both.
#[derive(Clone, Debug, Args)]
pub(crate) struct ComputeArgs {
    #[command(flatten)]
    pub(crate) threads: ThreadsArgs,
    /// Device: `auto` (the first usable GPU, else the CPU), `cpu`, `cuda` or `cuda:N`.
    #[arg(long, display_order = 100, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().ok().filter(|threads| (1..=MAX_THREADS).contains(threads));
    threads.ok_or_else(|| format!("expected an integer from 1 to {MAX_THREADS}"))
}

/// The device to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// The first GPU if it can be used, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let choice = match text.split_once(':') {
            None if text == "auto" => Some(Self::Auto),
            None if text == "cpu" => Some(Self::Cpu),
            None if text == "cuda" => Some(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().ok().map(Self::Cuda),
            _ => None,
        };
        choice.ok_or_else(|| "expected auto, cpu, cuda or cuda:N (the number of a GPU)".to_owned())
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_documented() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for bad in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CUDA"] {
            let error = bad.parse::<DeviceChoice>().unwrap_err();
            assert!(error.contains("cuda:N"), "{bad}: {error}");
        }
    }

    #[test]
    fn threads_have_bounds() {
        assert_eq!(parse_threads("1024"), Ok(1024));
        for bad in ["0", "1025", "4294967296", "-1", "two"] {
            assert!(parse_threads(bad).unwrap_err().contains("from 1 to 1024"), "{bad}");
        }
    }
}
