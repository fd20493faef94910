//! Sampling by flags and by what the checkpoint recommends.

use anyhow::Result;
use ssa_infer::SamplingOptions;

use crate::args::GenerationArgs;
use crate::exit::UsageError;

/// The flags, and where they say nothing the defaults.
pub(super) fn choose(args: &GenerationArgs, defaults: &SamplingOptions) -> Result<SamplingOptions> {
    let options = SamplingOptions {
        temperature: args.temperature.unwrap_or(defaults.temperature),
        top_k: args.top_k.unwrap_or(defaults.top_k),
        top_p: args.top_p.unwrap_or(defaults.top_p),
        min_p: args.min_p.unwrap_or(defaults.min_p),
        repetition_penalty: args.repetition_penalty.unwrap_or(defaults.repetition_penalty),
    };
    // Whoever asks for temperature 0 gets it; others should not wonder why a flag does nothing.
    let flags = [
        ("--top-k", args.top_k.is_some()),
        ("--top-p", args.top_p.is_some()),
        ("--min-p", args.min_p.is_some()),
    ];
    match flags.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) if options.is_greedy() && args.temperature.is_none() => {
            Err(UsageError(format!(
                "{flag} has no effect: the most probable token is taken by default\nhint: pass \
                 --temperature 1"
            ))
            .into())
        }
        _ => Ok(options),
    }
}
