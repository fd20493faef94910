//! Golden cases of one attention layer, computed by the released code.

use ssa_testkit::{Golden, golden_dir};

use super::selection::BlockIndices;
use crate::{Documents, Tensor};

/// One file of `golden_dir()/ops`; every row of its batch is one document.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) golden: Golden,
    pub(crate) documents: Documents,
    pub(crate) block_size: usize,
    pub(crate) block_counts: usize,
}

impl Case {
    /// All cases present, at least one.
    pub(crate) fn all() -> Vec<Self> {
        let folder = golden_dir().join("ops");
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{} holds golden cases", folder.display());
        let case = |path: &std::path::PathBuf| {
            let golden = Golden::read(path);
            let [batch, tokens] = golden.tensor("q").shape[..2] else {
                panic!("q has axes B and T")
            };
            Self {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                documents: Documents::rows(batch, tokens).unwrap(),
                block_size: golden.usize("block_size"),
                block_counts: golden.usize("block_counts"),
                golden,
            }
        };
        paths.iter().map(case).collect()
    }

    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        let tensor = self.golden.tensor(name);
        Tensor::from_vec(tensor.values.clone(), tensor.shape.clone()).unwrap()
    }

    pub(crate) fn softmax_scale(&self) -> f32 {
        (self.golden.tensor("q").shape[3] as f32).powf(-0.5)
    }

    /// The released selection, whose rows are in no particular order.
    pub(crate) fn block_indices(&self) -> BlockIndices {
        let tensor = self.golden.tensor("block_indices");
        let [_, _, kv_heads, slots] = tensor.shape[..] else {
            panic!("block_indices has axes B, T, H, S")
        };
        let mut indices: Vec<i32> = tensor.values.iter().map(|&block| block as i32).collect();
        for row in indices.chunks_mut(slots) {
            row.sort_by_key(|&block| if block < 0 { i32::MAX } else { block });
        }
        BlockIndices::from_vec(indices, &self.documents, kv_heads, self.block_size, slots).unwrap()
    }
}
