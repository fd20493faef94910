//! Initialization of parameters.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use ssa_kernels::Tensor;

use super::Parameters;
use crate::{ModelConfig, Result};

impl Parameters {
    /// Initializes parameters: matrices from N(0, `initializer_range`²), norm weights 1, biases 0.
    ///
    /// # Determinism
    /// The same configuration and seed give the same bits for any number of threads: every tensor
    /// draws from its own stream of the seeded generator, numbered by its index in
    /// [`Parameters::named`].
    ///
    /// # Errors
    /// Same as [`Parameters::zeros`].
    pub fn init(config: &ModelConfig, seed: u64) -> Result<Self> {
        let mut parameters = Self::zeros(config)?;
        let std = config.initializer_range as f32;
        let fill = |(index, (name, tensor)): (usize, (String, &mut Tensor))| -> Result<()> {
            let is_matrix = tensor.shape().len() > 1;
            let values = tensor.as_mut_slice()?;
            if is_matrix {
                fill_normal(values, std, seed, index as u64);
            } else if !name.ends_with(".bias") {
                values.fill(1.0);
            }
            Ok(())
        };
        parameters.named_mut().into_par_iter().enumerate().try_for_each(fill)?;
        Ok(parameters)
    }
}

fn fill_normal(values: &mut [f32], std: f32, seed: u64, stream: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    for value in values {
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
        let init = |seed| Parameters::init(&config, seed).unwrap();
        let parameters = init(7);
        assert!(parameters.same_elements(&init(7)).unwrap());
        let (first, second) = (&parameters.layers[0], &parameters.layers[1]);
        for (a, b) in [
            (&parameters.embed_tokens, &init(8).embed_tokens),
            (&first.up_proj, &first.gate_proj),
            (&first.up_proj, &second.up_proj),
        ] {
            assert!(!a.same_elements(b).unwrap());
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let config = small_config();
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Parameters::init(&config, 7).unwrap())
        };
        assert!(with_threads(1).same_elements(&with_threads(3)).unwrap());
    }

    #[test]
    fn another_vocabulary_leaves_the_layers_alone() {
        let larger =
            ModelConfig::new(ModelSettings { vocab_size: 300, ..small_settings() }).unwrap();
        let larger = Parameters::init(&larger, 7).unwrap();
        let small = Parameters::init(&small_config(), 7).unwrap();
        let layers =
            |parameters: Parameters| Parameters { embed_tokens: Tensor::default(), ..parameters };
        assert!(layers(larger).same_elements(&layers(small)).unwrap());
    }

    #[test]
    fn matrices_are_normal_and_norms_are_one() {
        let wide = ModelSettings { hidden_size: 256, intermediate_size: 512, ..small_settings() };
        let parameters = Parameters::init(&ModelConfig::new(wide).unwrap(), 1).unwrap();
        for (name, tensor) in parameters.named() {
            let values = tensor.as_slice().unwrap();
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
