//! All kernels of the crate.

use super::attention::tiled::cuda as tiled;
use super::attention::{cached, gated_pair, pooling, selection, sparse, statistics};
use super::{
    adamw, bias, cross_entropy, embedding, gate, grad_norm, linear, rms_norm, rope, sampling, step,
    swiglu,
};
use crate::cuda::{Module, elementwise};
use crate::kv_cache;

/// Every module of kernels, for checks that compile all of them
/// ([`compile_all`](crate::cuda::compile_all)).
pub static MODULES: &[&Module] = &[
    &elementwise::MODULE,
    &adamw::cuda::MODULE,
    &bias::cuda::MODULE,
    &gated_pair::cuda::MODULE,
    &statistics::cuda::MODULE,
    &cross_entropy::cuda::MODULE,
    &embedding::cuda::MODULE,
    &gate::cuda::MODULE,
    &grad_norm::cuda::MODULE,
    &rms_norm::cuda::MODULE,
    &rope::cuda::MODULE,
    &swiglu::cuda::MODULE,
    &tiled::FORWARD,
    &tiled::FORWARD_SM90,
    &tiled::QUERIES,
    &tiled::QUERIES_SM90,
    &tiled::KEYS,
    &tiled::KEYS_SM90,
    &tiled::GRADIENTS,
    &pooling::cuda::MODULE,
    &selection::cuda::MODULE,
    &selection::cuda::warpgroups::MODULE,
    &sparse::cuda::FORWARD,
    &sparse::cuda::BACKWARD_QUERIES,
    &sparse::cuda::BACKWARD_KEYS,
    &sparse::cuda::INVERSE_INDEX,
    cached::cuda::MODULES[0],
    cached::cuda::MODULES[1],
    cached::cuda::MODULES[2],
    cached::cuda::MODULES[3],
    cached::cuda::MODULES[4],
    cached::cuda::MODULES[5],
    &kv_cache::MODULE,
    &linear::rows::cuda::MODULE,
    &step::MODULE,
    &sampling::cuda::MODULE,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cuda::{COMMON, Header, PARAMS};

    /// The headers that a text includes.
    fn included(text: &str) -> BTreeSet<&str> {
        text.lines()
            .filter_map(|line| line.strip_prefix("#include \"")?.split('"').next())
            .collect()
    }

    fn check(header: &Header) {
        let declared: BTreeSet<&str> = header.includes.iter().map(|header| header.name).collect();
        assert_eq!(included(header.text), declared, "{}", header.name);
        header.includes.iter().for_each(|header| check(header));
    }

    /// The key of a compiled module covers its headers, so the lists have to be those of the texts.
    #[test]
    fn modules_name_the_headers_that_they_include() {
        for module in MODULES {
            let mut declared: BTreeSet<&str> =
                module.headers.iter().map(|header| header.name).collect();
            let mut included = included(module.source);
            for always in [COMMON.name, PARAMS] {
                declared.remove(always);
                included.remove(always);
            }
            assert_eq!(included, declared, "{}.cu", module.name);
            module.headers.iter().for_each(|header| check(header));
        }
    }

    #[test]
    fn names_of_modules_are_unique() {
        let names: BTreeSet<&str> = MODULES.iter().map(|module| module.name).collect();
        assert_eq!(names.len(), MODULES.len());
    }
}
