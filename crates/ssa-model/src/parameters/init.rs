//! Fresh parameters.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use ssa_kernels::Tensor;

use super::Parameters;
use crate::ModelConfig;

impl Parameters {
    /// Fresh parameters: matrices from N(0, `initializer_range`²), norm weights 1.
    ///
    /// # Determinism
    /// The same configuration and seed give the same bits whatever the number of threads: every
    /// tensor draws from its own stream of the seeded generator, numbered by its place in
    /// [`Parameters::named`].
    pub fn init(config: &ModelConfig, seed: u64) -> Self {
        let mut parameters = Self::zeros(config);
        let std = config.initializer_range as f32;
        parameters.named_mut().into_par_iter().enumerate().for_each(|(index, (_, tensor))| {
            let is_norm = tensor.shape().len() == 1;
            if is_norm {
                tensor.fill(1.0);
            } else {
                fill_normal(tensor, std, seed, index as u64);
            }
        });
        parameters
    }
}

fn fill_normal(tensor: &mut Tensor, std: f32, seed: u64, stream: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    for value in tensor.as_mut_slice() {
        let normal: f32 = StandardNormal.sample(&mut random);
        *value = std * normal;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{small_config, small_settings};
    use crate::{ModelConfig, ModelSettings};

    #[test]
    fn the_seed_decides_and_tensors_differ() {
        let config = small_config();
        let parameters = Parameters::init(&config, 7);
        assert_eq!(parameters, Parameters::init(&config, 7));
        assert_ne!(parameters.embed_tokens, Parameters::init(&config, 8).embed_tokens);
        assert_ne!(parameters.layers[0].up_proj, parameters.layers[0].gate_proj);
        assert_ne!(parameters.layers[0].up_proj, parameters.layers[1].up_proj);
    }

    #[test]
    fn threads_do_not_matter() {
        let config = small_config();
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Parameters::init(&config, 7))
        };
        assert_eq!(with_threads(1), with_threads(3));
    }

    #[test]
    fn another_vocabulary_leaves_the_layers_alone() {
        let larger =
            ModelConfig::new(ModelSettings { vocab_size: 300, ..small_settings() }).unwrap();
        assert_eq!(
            Parameters::init(&larger, 7).layers,
            Parameters::init(&small_config(), 7).layers
        );
    }

    #[test]
    fn matrices_are_normal_and_norms_are_one() {
        let wide = ModelSettings { hidden_size: 256, intermediate_size: 512, ..small_settings() };
        let parameters = Parameters::init(&ModelConfig::new(wide).unwrap(), 1);
        for (name, tensor) in parameters.named() {
            let values = tensor.as_slice();
            if name.ends_with("norm.weight") {
                assert!(values.iter().all(|&value| value == 1.0), "{name}");
                continue;
            }
            let n = values.len() as f64;
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
            let std = (values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n).sqrt();
            // Five standard errors of either estimate.
            assert!(mean.abs() < 5.0 * 0.02 / n.sqrt(), "{name}: mean {mean}");
            assert!(
                (std - 0.02).abs() < 5.0 * 0.02 / (2.0 * n).sqrt(),
                "{name}: standard deviation {std}"
            );
        }
    }
}
