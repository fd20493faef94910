use std::fs;
use std::io;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use ssa_files::Operation;
use ssa_kernels::{DType, Device, Tensor};
use ssa_testkit::golden_dir;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::ModelSettings;
use crate::parameters::LM_HEAD;
use crate::testing::{small_config, small_settings};

/// A tensor of a weight file: name, type, shape and bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// A saved model, its parameters and its folder.
fn saved(settings: ModelSettings) -> (TempDir, Parameters) {
    let config = ModelConfig::new(settings).unwrap();
    let parameters = Parameters::init(&config, 1).unwrap();
    let dir = tempdir().unwrap();
    save(dir.path(), &config, &parameters).unwrap();
    (dir, parameters)
}

/// Writes a weight file with tensors of any dtype, using the reference implementation of the
/// format.
fn write_weights(path: &Path, tensors: &[Stored]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn stored(parameters: &Parameters) -> Vec<Stored> {
    let bytes = |tensor: &Tensor| {
        tensor.as_slice().unwrap().iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let entry = |(name, tensor): (String, &Tensor)| {
        (name, Dtype::F32, tensor.shape().to_vec(), bytes(tensor))
    };
    parameters.named().into_iter().map(entry).collect()
}

/// The parameters in a folder.
#[track_caller]
fn loaded(dir: &TempDir) -> Parameters {
    load(dir.path()).unwrap().1
}

/// The error message of loading the folder.
#[track_caller]
fn load_error(dir: &TempDir) -> String {
    load(dir.path()).unwrap_err().to_string()
}

#[track_caller]
fn assert_message(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

fn bits(parameters: &Parameters) -> Vec<Vec<u32>> {
    let bits =
        |tensor: &Tensor| tensor.as_slice().unwrap().iter().map(|value| value.to_bits()).collect();
    parameters.named().into_iter().map(|(_, tensor)| bits(tensor)).collect()
}

#[test]
fn save_and_load_keep_every_bit() {
    for tie_word_embeddings in [true, false] {
        let config =
            ModelConfig::new(ModelSettings { tie_word_embeddings, ..small_settings() }).unwrap();
        let mut parameters = Parameters::init(&config, 3).unwrap();
        let odd =
            [f32::NAN, f32::from_bits(0x7f80_0001), f32::NEG_INFINITY, -0.0, f32::from_bits(1)];
        parameters.norm.as_mut_slice().unwrap()[..5].copy_from_slice(&odd);
        let dir = tempdir().unwrap();
        let inner = dir.path().join("not/there/yet");
        save(&inner, &config, &parameters).unwrap();
        let (loaded_config, loaded) = load(&inner).unwrap();
        assert_eq!(loaded_config, config);
        assert_eq!(bits(&loaded), bits(&parameters));
        let mut files: Vec<_> =
            fs::read_dir(&inner).unwrap().map(|e| e.unwrap().file_name()).collect();
        files.sort();
        let mut expected = FILES;
        expected.sort_unstable();
        assert_eq!(files, expected, "no temporary file is left");
    }
}

#[test]
fn auto_map_names_classes_of_the_python_files() {
    let (dir, _) = saved(small_settings());
    let config: Value =
        serde_json::from_slice(&fs::read(dir.path().join(CONFIG)).unwrap()).unwrap();
    let auto_map = config["auto_map"].as_object().unwrap();
    assert_eq!(auto_map.len(), 3);
    for (auto, place) in auto_map {
        let (module, class) = place.as_str().unwrap().split_once('.').unwrap();
        let source = fs::read_to_string(dir.path().join(format!("{module}.py"))).unwrap();
        assert!(source.contains(&format!("\nclass {class}(")), "{auto}");
    }
}

#[test]
fn tensors_larger_than_the_buffer_survive() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("large.safetensors");
    let values: Vec<f32> = (0..700_001).map(|value| value as f32).collect();
    let tensor = Tensor::from_vec(values, [700_001]).unwrap();
    let empty = Tensor::zeros([0, 3]).unwrap();
    let tensors =
        [("a".to_owned(), &tensor), ("empty".to_owned(), &empty), ("b".to_owned(), &tensor)];
    write_tensors(&path, &tensors, &[("step", "12"), ("format", "pt")]).unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.metadata("step"), Some("12"));
    assert_eq!(file.metadata("epoch"), None);
    assert_eq!(file.names().len(), 3);
    for (name, expected) in tensors {
        assert!(file.read(&name).unwrap().same_elements(expected).unwrap(), "{name}");
    }
    // Another implementation reads the file too, and finds its data aligned.
    let bytes = fs::read(&path).unwrap();
    let (header, _) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header % 8, 0);
}

#[test]
fn half_precision_is_widened() {
    let (dir, parameters) = saved(small_settings());
    for dtype in [Dtype::BF16, Dtype::F16] {
        let round = |value: f32| match dtype {
            Dtype::BF16 => (bf16::from_f32(value).to_le_bytes(), bf16::from_f32(value).to_f32()),
            _ => (f16::from_f32(value).to_le_bytes(), f16::from_f32(value).to_f32()),
        };
        let mut expected = parameters.to_device(&Device::Cpu, DType::F32).unwrap();
        let mut tensors = Vec::new();
        for (name, tensor) in expected.named_mut() {
            let rounded: Vec<_> =
                tensor.as_slice().unwrap().iter().map(|&value| round(value)).collect();
            let bytes = rounded.iter().flat_map(|(bytes, _)| *bytes).collect();
            tensors.push((name, dtype, tensor.shape().to_vec(), bytes));
            let values = tensor.as_mut_slice().unwrap().iter_mut();
            values.zip(rounded).for_each(|(value, (_, rounded))| *value = rounded);
        }
        write_weights(&dir.path().join(WEIGHTS), &tensors);
        assert!(loaded(&dir).same_elements(&expected).unwrap(), "{dtype}");
    }
}

/// Splits the weights of a saved model into two shards and returns the index.
fn shard(dir: &Path, parameters: &Parameters) -> Value {
    fs::remove_file(dir.join(WEIGHTS)).unwrap();
    let tensors = stored(parameters);
    let mut weight_map = serde_json::Map::new();
    for (shard, tensors) in tensors.chunks(tensors.len() / 2 + 1).enumerate() {
        let file = format!("model-{shard}.safetensors");
        write_weights(&dir.join(&file), tensors);
        weight_map.extend(tensors.iter().map(|tensor| (tensor.0.clone(), json!(file))));
    }
    json!({ "metadata": { "total_size": 1 }, "weight_map": weight_map })
}

#[test]
fn shards_are_put_together() {
    let (dir, parameters) = saved(small_settings());
    let index = shard(dir.path(), &parameters);
    assert_message(
        &load_error(&dir),
        &["neither model.safetensors nor model.safetensors.index.json"],
    );
    fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
    assert!(loaded(&dir).same_elements(&parameters).unwrap());
}

#[test]
fn broken_shards_are_named() {
    let (dir, parameters) = saved(small_settings());
    let mut index = shard(dir.path(), &parameters);
    let index_path = dir.path().join(INDEX);
    let write = |index: &Value| fs::write(&index_path, index.to_string()).unwrap();

    write(&json!({ "metadata": {} }));
    assert_message(&load_error(&dir), &["cannot parse", INDEX, "weight_map"]);
    index["weight_map"]["model.norm.weight"] = json!("../model-0.safetensors");
    write(&index);
    assert_message(&load_error(&dir), &[INDEX, "`../model-0.safetensors`"]);
    index["weight_map"]["model.norm.weight"] = json!("model-0.safetensors");
    write(&index);
    assert_message(
        &load_error(&dir),
        &[INDEX, "places `model.norm.weight` in model-0.safetensors, but model-1.safetensors has"],
    );
    index["weight_map"]["model.norm.weight"] = json!("model-7.safetensors");
    write(&index);
    assert_message(&load_error(&dir), &["cannot read", "model-7.safetensors", "No such file"]);
    index["weight_map"].as_object_mut().unwrap().remove("model.norm.weight");
    write(&index);
    assert_message(&load_error(&dir), &[INDEX, "does not list `model.norm.weight`, which is in"]);
}

#[test]
fn tensors_in_two_places_are_refused() {
    let (dir, parameters) = saved(small_settings());
    let index = shard(dir.path(), &parameters);
    let index_path = dir.path().join(INDEX);
    fs::write(&index_path, index.to_string()).unwrap();
    assert!(loaded(&dir).same_elements(&parameters).unwrap());

    let norm = "model.norm.weight";
    let entries = "\"weight_map\":{";
    let twice = index
        .to_string()
        .replace(entries, &format!("{entries}\"{norm}\":\"model-0.safetensors\","));
    fs::write(&index_path, twice).unwrap();
    assert_message(
        &load_error(&dir),
        &["cannot parse", INDEX, "`model.norm.weight` is listed twice"],
    );

    // A second copy in a shard that the index does not send us to.
    fs::write(&index_path, index.to_string()).unwrap();
    let first = dir.path().join("model-0.safetensors");
    let mut tensors = stored(&parameters);
    tensors.truncate(tensors.len() / 2 + 1);
    tensors.push((norm.into(), Dtype::F32, vec![20], vec![0; 80]));
    write_weights(&first, &tensors);
    let parts =
        ["places `model.norm.weight` in model-1.safetensors", "model-0.safetensors has one"];
    assert_message(&load_error(&dir), &parts);
    tensors.last_mut().unwrap().0 = "model.extra".into();
    write_weights(&first, &tensors);
    assert_message(&load_error(&dir), &[INDEX, "does not list `model.extra`"]);

    for outside in ["/etc/passwd", "a/../model-0.safetensors", "..", ""] {
        let mut index = index.clone();
        index["weight_map"][norm] = json!(outside);
        fs::write(&index_path, index.to_string()).unwrap();
        assert_message(&load_error(&dir), &[INDEX, "not the name of a file in the same folder"]);
    }
}

#[test]
fn weights_that_are_not_finite_are_found_by_name() {
    let (_, mut parameters) = saved(small_settings());
    assert_eq!(parameters.first_not_finite().unwrap(), None);
    parameters.layers[1].up_proj.as_mut_slice().unwrap()[3] = f32::NAN;
    let name = "model.layers.1.mlp.up_proj.weight".to_owned();
    assert_eq!(parameters.first_not_finite().unwrap(), Some(name));
}

#[test]
fn wrong_tensors_are_named() {
    let (dir, parameters) = saved(small_settings());
    let path = dir.path().join(WEIGHTS);
    let check = |change: &dyn Fn(&mut Vec<Stored>), parts: &[&str]| {
        let mut tensors = stored(&parameters);
        change(&mut tensors);
        write_weights(&path, &tensors);
        let message = load_error(&dir);
        assert_message(&message, &[path.to_str().unwrap()]);
        assert_message(&message, parts);
    };
    let g_proj = "model.layers.1.self_attn.g_proj.weight";
    check(&|tensors| tensors.retain(|tensor| tensor.0 != g_proj), &["has no tensor", g_proj]);
    check(&|tensors| tensors[0].2.reverse(), &["embed_tokens", "[20, 97]", "[97, 20]"]);
    check(
        &|tensors| {
            tensors[0] =
                ("model.embed_tokens.weight".into(), Dtype::I8, vec![97, 20], vec![0; 97 * 20])
        },
        &["embed_tokens", "stored as I8", "F32, BF16 or F16"],
    );
    let extra = |name: String| (name, Dtype::F32, vec![1], vec![0; 4]);
    check(
        &|tensors| tensors.push(extra("model.layers.2.mlp.bias".into())),
        &["`model.layers.2.mlp.bias`"],
    );
    let many =
        |tensors: &mut Vec<_>| tensors.extend((0..8).map(|number| extra(format!("x{number}"))));
    check(&many, &["`x0`, `x1`, `x2`, `x3`, `x4` and 3 more"]);
}

#[test]
fn the_output_layer_is_read_if_and_only_if_untied() {
    let (dir, parameters) = saved(small_settings());
    let mut tensors = stored(&parameters);
    tensors.push((LM_HEAD.into(), Dtype::F32, vec![97, 20], vec![0; 97 * 20 * 4]));
    let inv_freq = "model.layers.0.self_attn.rotary_emb.inv_freq";
    tensors.push((inv_freq.into(), Dtype::F64, vec![1], vec![0; 8]));
    write_weights(&dir.path().join(WEIGHTS), &tensors);
    assert!(loaded(&dir).same_elements(&parameters).unwrap());

    let untied = ModelSettings { tie_word_embeddings: false, ..small_settings() };
    let untied = ModelConfig::new(untied).unwrap();
    fs::write(dir.path().join(CONFIG), untied.to_json().to_string()).unwrap();
    let head = loaded(&dir).lm_head.unwrap();
    assert!(head.same_elements(&Tensor::zeros([97, 20]).unwrap()).unwrap());
    write_weights(&dir.path().join(WEIGHTS), &stored(&parameters));
    assert_message(&load_error(&dir), &["has no tensor `lm_head.weight`"]);
}

#[test]
fn damaged_files_are_named() {
    let (dir, _) = saved(small_settings());
    let path = dir.path().join(WEIGHTS);
    let whole = fs::read(&path).unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n";
    let mut broken_json = whole.clone();
    broken_json[8] = b'x';
    let mut longer = whole.clone();
    longer.push(0);
    let cases: [(&[u8], &str); 6] = [
        (b"abc", "only 3 bytes"),
        (&whole[..100], "announces a header"),
        (&whole[..whole.len() - 1], "bytes of tensors, its header says"),
        (&longer, "bytes of tensors, its header says"),
        (&broken_json, "header is not valid"),
        (pointer, "announces a header"),
    ];
    for (content, problem) in cases {
        fs::write(&path, content).unwrap();
        assert_message(
            &load_error(&dir),
            &[path.to_str().unwrap(), problem, "download or copy it again"],
        );
    }
}

#[test]
fn missing_files_are_named() {
    let (dir, _) = saved(small_settings());
    fs::remove_file(dir.path().join(CONFIG)).unwrap();
    assert_message(&load_error(&dir), &["cannot read", CONFIG, "No such file"]);
    fs::write(dir.path().join(CONFIG), "{").unwrap();
    assert_message(&load_error(&dir), &["cannot parse", CONFIG]);
}

#[test]
fn parameters_of_another_model_are_not_saved() {
    let other =
        ModelConfig::new(ModelSettings { num_hidden_layers: 1, ..small_settings() }).unwrap();
    let dir = tempdir().unwrap();
    let error = save(dir.path(), &other, &Parameters::zeros(&small_config()).unwrap())
        .unwrap_err()
        .to_string();
    assert_message(
        &error,
        &["`model.layers.1.input_layernorm.weight` [20]", "`model.norm.weight` [20]"],
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let file = dir.path().join("file");
    let inside = file.join("model");
    let config = small_config();
    let parameters = Parameters::zeros(&config).unwrap();
    let error = save(&inside, &config, &parameters).unwrap_err().to_string();
    assert_message(&error, &["cannot create", file.to_str().unwrap()]);
}

#[test]
fn a_full_disk_is_an_error_and_keeps_the_old_file() {
    let (dir, parameters) = saved(small_settings());
    let path = dir.path().join(WEIGHTS);
    let (full, no_space) = (path.clone(), 28);
    ssa_files::intercept(move |operation, path| match operation {
        Operation::Write if path == full => Err(io::Error::from_raw_os_error(no_space)),
        _ => Ok(()),
    });
    let before = fs::read_dir(dir.path()).unwrap().count();
    let error = save(dir.path(), &small_config(), &Parameters::zeros(&small_config()).unwrap())
        .unwrap_err()
        .to_string();
    assert_message(&error, &["cannot write", path.to_str().unwrap(), "No space left on device"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before, "no temporary file is left");
    assert!(loaded(&dir).same_elements(&parameters).unwrap());
}

/// Checkpoints written by the released code.
#[test]
fn golden_checkpoints_load_and_save() {
    let Ok(cases) = fs::read_dir(golden_dir().join("model")) else { return };
    for case in cases.map(|case| case.unwrap().path()) {
        let (config, parameters) = load(&case).unwrap();
        let golden = ssa_testkit::Golden::read(&case.join(WEIGHTS));
        assert_eq!(golden.tensors.len(), parameters.named().len());
        for (name, tensor) in parameters.named() {
            assert_eq!(
                tensor.as_slice().unwrap(),
                golden.tensor(&name).values,
                "{}: {name}",
                case.display()
            );
        }
        let dir = tempdir().unwrap();
        save(dir.path(), &config, &parameters).unwrap();
        let (saved_config, saved) = load(dir.path()).unwrap();
        assert_eq!(saved_config, config);
        assert!(saved.same_elements(&parameters).unwrap());
    }
}
