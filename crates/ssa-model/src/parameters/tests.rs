use super::*;
use crate::ModelSettings;
use crate::testing::{small_config, small_settings};

#[test]
fn names_and_shapes_are_those_of_the_released_model() {
    let config =
        ModelConfig::new(ModelSettings { tie_word_embeddings: false, ..small_settings() }).unwrap();
    let shapes = parameter_shapes(&config);
    let expected: [(&str, &[usize]); 12] = [
        ("model.embed_tokens.weight", &[97, 20]),
        ("model.layers.0.input_layernorm.weight", &[20]),
        ("model.layers.0.self_attn.q_proj.weight", &[48, 20]),
        ("model.layers.0.self_attn.k_proj.weight", &[16, 20]),
        ("model.layers.0.self_attn.v_proj.weight", &[16, 20]),
        ("model.layers.0.self_attn.o_proj.weight", &[20, 48]),
        ("model.layers.0.self_attn.g_proj.weight", &[18, 20]),
        ("model.layers.0.post_attention_layernorm.weight", &[20]),
        ("model.layers.0.mlp.gate_proj.weight", &[28, 20]),
        ("model.layers.0.mlp.up_proj.weight", &[28, 20]),
        ("model.layers.0.mlp.down_proj.weight", &[20, 28]),
        ("model.layers.1.input_layernorm.weight", &[20]),
    ];
    for ((name, shape), expected) in shapes.iter().zip(expected) {
        assert_eq!((name.as_str(), shape.as_slice()), expected);
    }
    let last: Vec<_> = shapes[21..].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(last, ["model.norm.weight", "lm_head.weight"]);
}

#[test]
fn both_listings_agree_with_the_shapes() {
    for tie_word_embeddings in [true, false] {
        let config =
            ModelConfig::new(ModelSettings { tie_word_embeddings, ..small_settings() }).unwrap();
        let mut parameters = Parameters::zeros(&config).unwrap();
        let shapes = parameter_shapes(&config);
        let named: Vec<_> = parameters
            .named()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.shape().to_vec()))
            .collect();
        assert_eq!(named, shapes);
        let named_mut: Vec<_> = parameters
            .named_mut()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.shape().to_vec()))
            .collect();
        assert_eq!(named_mut, shapes);
        let count: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(parameters.count(), count);
        parameters.check(&config).unwrap();
    }
}

#[test]
fn the_head_is_the_embedding_only_if_tied() {
    let mut tied = Parameters::zeros(&small_config()).unwrap();
    tied.head_mut().as_mut_slice().unwrap().fill(1.0);
    assert_eq!(tied.embed_tokens.as_slice().unwrap()[0], 1.0);
    assert!(std::ptr::eq(tied.head(), &tied.embed_tokens));

    let untied = ModelSettings { tie_word_embeddings: false, ..small_settings() };
    let mut untied = Parameters::zeros(&ModelConfig::new(untied).unwrap()).unwrap();
    untied.head_mut().as_mut_slice().unwrap().fill(1.0);
    assert_eq!(untied.embed_tokens.as_slice().unwrap()[0], 0.0);
    assert!(untied.lm_head.as_ref().is_some_and(|head| std::ptr::eq(untied.head(), head)));
    untied.fill_zero();
    assert!(
        untied.named().iter().all(|(_, tensor)| tensor
            .as_slice()
            .unwrap()
            .iter()
            .all(|&value| value == 0.0))
    );
}

#[test]
fn parameters_of_another_shape_are_refused() {
    let wider = ModelSettings { intermediate_size: 30, ..small_settings() };
    let wider = Parameters::zeros(&ModelConfig::new(wider).unwrap()).unwrap();
    assert_eq!(
        wider.check(&small_config()).unwrap_err().to_string(),
        "the parameters do not fit the configuration: found \
         `model.layers.0.mlp.gate_proj.weight` [30, 20], \
         expected `model.layers.0.mlp.gate_proj.weight` [28, 20]",
    );
    let untied = ModelSettings { tie_word_embeddings: false, ..small_settings() };
    let untied = ModelConfig::new(untied).unwrap();
    let tied = Parameters::zeros(&small_config()).unwrap();
    let error = tied.check(&untied).unwrap_err().to_string();
    assert!(
        error.ends_with("found no more tensors, expected `lm_head.weight` [97, 20]"),
        "{error}"
    );
}
