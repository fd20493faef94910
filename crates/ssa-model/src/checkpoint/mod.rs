//! Models on disk: Hugging Face folders with `config.json` and safetensors weights.

mod tensor_file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ssa_kernels::Tensor;

use crate::parameters::LM_HEAD;
use crate::{ModelConfig, ModelError, Parameters, Result, parameter_shapes};

pub use tensor_file::{TensorFile, write_tensors};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Writes `config.json` and `model.safetensors` (`f32`) into a folder, which is made if need be.
/// Each file is replaced as a whole, the configuration last.
///
/// # Errors
/// [`ModelError::File`], for example where the disk is full; [`ModelError::Parameters`]
/// if the parameters are not those of the configuration.
pub fn save(dir: &Path, config: &ModelConfig, parameters: &Parameters) -> Result<()> {
    parameters.check(config)?;
    ssa_files::create_directories(dir)?;
    // The entry that transformers insists on: the tensors are laid out as PyTorch's are.
    let metadata = [("format", "pt")];
    write_tensors(&dir.join(WEIGHTS), &parameters.named(), &metadata)?;
    let config = format!("{:#}\n", config.to_json());
    Ok(ssa_files::write(&dir.join(CONFIG), config)?)
}

/// Reads a folder: `config.json` and either `model.safetensors` or, without that, the shards named
/// in `model.safetensors.index.json`. `F32`, `BF16` and `F16` weights become `f32`.
///
/// All names and shapes are checked before the first tensor is read. `lm_head.weight` is ignored
/// where the configuration ties it to the embedding, and so are the `rotary_emb.inv_freq` tables of
/// old checkpoints.
///
/// # Errors
/// [`ModelError`] with the file and what is wrong: a file missing, damaged or of another
/// architecture; a tensor missing, unexpected, or with the wrong shape or type.
pub fn load(dir: &Path) -> Result<(ModelConfig, Parameters)> {
    let config = ModelConfig::read(&dir.join(CONFIG))?;
    let weights = Weights::open(dir)?;
    weights.check(&config)?;
    let parameters = Parameters::build(&config, |name, _| weights.read(name))?;
    Ok((config, parameters))
}

/// The weight files of a folder.
struct Weights {
    /// The file that lists all tensors: the only weight file, or the index.
    path: PathBuf,
    files: Vec<TensorFile>,
    /// For each tensor, the place of its file in `files`.
    file_of: BTreeMap<String, usize>,
}

impl Weights {
    fn open(dir: &Path) -> Result<Self> {
        let [single, index] = [dir.join(WEIGHTS), dir.join(INDEX)];
        if single.exists() {
            let file = TensorFile::open(&single)?;
            let file_of = file.names().into_iter().map(|name| (name, 0)).collect();
            Ok(Self { path: single, files: vec![file], file_of })
        } else if index.exists() {
            Self::open_shards(dir, index)
        } else {
            Err(ModelError::NoWeights { path: dir.to_owned() })
        }
    }

    fn open_shards(dir: &Path, index: PathBuf) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = ssa_files::read(&index).map_err(ModelError::io("read", &index))?;
        let Index { weight_map } = serde_json::from_slice(&text)
            .map_err(|reason| ModelError::Json { path: index.clone(), reason })?;
        let mut files: Vec<TensorFile> = Vec::new();
        let mut place_of = BTreeMap::new();
        let mut file_of = BTreeMap::new();
        for (name, shard) in weight_map {
            let place = match place_of.get(&shard) {
                Some(&place) => place,
                None => {
                    files.push(TensorFile::open(&shard_path(dir, &index, &shard)?)?);
                    place_of.insert(shard, files.len() - 1);
                    files.len() - 1
                }
            };
            file_of.insert(name, place);
        }
        Ok(Self { path: index, files, file_of })
    }

    fn check(&self, config: &ModelConfig) -> Result<()> {
        let shapes: BTreeMap<_, _> = parameter_shapes(config).into_iter().collect();
        for (name, shape) in &shapes {
            self.file(name)?.check(name, shape)?;
        }
        let ignored = |name: &str| {
            name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == LM_HEAD)
        };
        let unexpected = |name: &&String| !shapes.contains_key(*name) && !ignored(name);
        let names: Vec<_> = self.file_of.keys().filter(unexpected).cloned().collect();
        if names.is_empty() {
            Ok(())
        } else {
            Err(ModelError::UnexpectedTensors { path: self.path.clone(), names })
        }
    }

    fn read(&self, name: &str) -> Result<Tensor> {
        self.file(name)?.read(name)
    }

    fn file(&self, name: &str) -> Result<&TensorFile> {
        match self.file_of.get(name) {
            Some(&place) => Ok(&self.files[place]),
            None => {
                Err(ModelError::MissingTensor { path: self.path.clone(), name: name.to_owned() })
            }
        }
    }
}

/// The path of a shard. An index from elsewhere must not make us read files outside its folder.
fn shard_path(dir: &Path, index: &Path, shard: &str) -> Result<PathBuf> {
    if Path::new(shard).file_name() == Some(shard.as_ref()) {
        Ok(dir.join(shard))
    } else {
        let problem = format!(
            "it places tensors in `{shard}`, which is not the name of a file in the same folder"
        );
        Err(ModelError::Damaged { path: index.to_owned(), problem })
    }
}
