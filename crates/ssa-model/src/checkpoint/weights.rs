//! The weight files of a model: one, or the shards that an index names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use ssa_kernels::Tensor;

use super::{INDEX, TensorFile, WEIGHTS};
use crate::parameters::LM_HEAD;
use crate::{ModelConfig, ModelError, Result, parameter_shapes};

/// The weight files of a folder.
pub(super) struct Weights {
    /// The file that lists all tensors: the only weight file, or the index.
    path: PathBuf,
    files: Vec<TensorFile>,
    /// For each tensor, the place of its file in `files`.
    file_of: BTreeMap<String, usize>,
}

impl Weights {
    pub(super) fn open(dir: &Path) -> Result<Self> {
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
        let weight_map = read_index(&index)?;
        let mut files: Vec<TensorFile> = Vec::new();
        let mut place_of = BTreeMap::new();
        let mut file_of = BTreeMap::new();
        for (name, shard) in &weight_map {
            let place = match place_of.get(shard) {
                Some(&place) => place,
                None => {
                    files.push(TensorFile::open(&dir.join(shard))?);
                    place_of.insert(shard.clone(), files.len() - 1);
                    files.len() - 1
                }
            };
            file_of.insert(name.clone(), place);
        }
        for (shard, place) in &place_of {
            check_shard(&index, &weight_map, shard, &files[*place])?;
        }
        Ok(Self { path: index, files, file_of })
    }

    /// Checks names and shapes of all tensors.
    pub(super) fn check(&self, config: &ModelConfig) -> Result<()> {
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

    pub(super) fn read(&self, name: &str) -> Result<Tensor> {
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

/// The file of every tensor. An index from elsewhere must not make us read files outside its
/// folder.
fn read_index(index: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: WeightMap,
    }
    let text = ssa_files::read(index).map_err(ModelError::io("read", index))?;
    let Index { weight_map: WeightMap(weight_map) } = serde_json::from_slice(&text)
        .map_err(|reason| ModelError::Json { path: index.to_owned(), reason })?;
    for shard in weight_map.values() {
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            let problem = format!(
                "it places tensors in `{shard}`, which is not the name of a file in the same folder"
            );
            return Err(ModelError::Damaged { path: index.to_owned(), problem });
        }
    }
    Ok(weight_map)
}

/// Every tensor of a shard is the one that the index means: another shard could have a second copy
/// with other values.
fn check_shard(
    index: &Path,
    weight_map: &BTreeMap<String, String>,
    shard: &str,
    file: &TensorFile,
) -> Result<()> {
    for name in file.names() {
        let problem = match weight_map.get(&name) {
            Some(listed) if listed == shard => continue,
            Some(listed) => format!("it places `{name}` in {listed}, but {shard} has one too"),
            None => format!("it does not list `{name}`, which is in {shard}"),
        };
        return Err(ModelError::Damaged { path: index.to_owned(), problem });
    }
    Ok(())
}

/// A JSON object of strings in which no key occurs twice.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object that maps tensors to files")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<WeightMap, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((name, file)) = entries.next_entry::<String, String>()? {
                    if map.contains_key(&name) {
                        return Err(Error::custom(format!("the tensor `{name}` is listed twice")));
                    }
                    map.insert(name, file);
                }
                Ok(WeightMap(map))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
