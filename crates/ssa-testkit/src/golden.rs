//! Golden files: outputs of the released SSA code, stored as safetensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// A tensor of a golden file.
#[derive(Clone, Debug)]
pub struct GoldenTensor {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Row-major values; integers are converted.
    pub values: Vec<f32>,
}

impl GoldenTensor {
    /// The values in `f64`.
    pub fn to_f64(&self) -> Vec<f64> {
        self.values.iter().map(|&value| f64::from(value)).collect()
    }
}

/// All tensors and the metadata of a golden file.
pub struct Golden {
    /// Tensors by name.
    pub tensors: BTreeMap<String, GoldenTensor>,
    /// The `__metadata__` of the file.
    pub metadata: BTreeMap<String, String>,
}

impl Golden {
    /// Reads a safetensors file with `F32` and `I32` tensors; panics if it is not one.
    pub fn read(path: &Path) -> Self {
        Self::open(path).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Reads a safetensors file with `F32` and `I32` tensors.
    ///
    /// # Errors
    /// A message with the file and the problem.
    pub fn open(path: &Path) -> Result<Self, String> {
        let wrong = |problem: String| format!("{}: {problem}", path.display());
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let not_whole = |error| wrong(format!("not a complete safetensors file: {error}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(not_whole)?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let file = SafeTensors::deserialize(&bytes).map_err(not_whole)?;
        let tensors = file.iter().map(|(name, view)| {
            let convert: fn([u8; 4]) -> f32 = match view.dtype() {
                Dtype::F32 => f32::from_le_bytes,
                Dtype::I32 => |bytes| i32::from_le_bytes(bytes) as f32,
                other => {
                    return Err(wrong(format!(
                        "tensor {name} has dtype {other:?}, expected F32 or I32"
                    )));
                }
            };
            let values = view.data().as_chunks().0.iter().map(|bytes| convert(*bytes)).collect();
            Ok((name.to_owned(), GoldenTensor { shape: view.shape().to_vec(), values }))
        });
        Ok(Self { tensors: tensors.collect::<Result<_, _>>()?, metadata })
    }

    /// A tensor by name.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> &GoldenTensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("golden file has no tensor {name}"))
    }

    /// An integer of the metadata.
    #[track_caller]
    pub fn usize(&self, key: &str) -> usize {
        self.metadata[key].parse().expect("metadata holds an integer")
    }
}

/// The folder of golden files: `SSA_GOLDEN_DIR` if set, else `tests/golden` of the repository.
pub fn golden_dir() -> PathBuf {
    match std::env::var_os("SSA_GOLDEN_DIR") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    }
}
