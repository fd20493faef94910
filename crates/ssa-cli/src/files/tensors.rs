//! Safetensors files of plain tensors.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result};
use safetensors::{Dtype, SafeTensors, View};

use super::write_whole;
use crate::exit::FileError;

/// The name of the tensor of token ids.
const INPUT_IDS: &str = "input_ids";

/// Token ids as `[batch, tokens]`.
#[derive(Debug)]
pub(crate) struct InputIds {
    pub(crate) ids: Vec<u32>,
    pub(crate) batch: usize,
    pub(crate) tokens: usize,
}

/// Reads `input_ids` and checks that every id is in the vocabulary.
///
/// # Errors
/// Names the file and the problem: unreadable, truncated, missing tensor, wrong dtype or shape, or
/// the first id outside the vocabulary with its position.
pub(crate) fn read_input_ids(path: &Path, vocab_size: usize) -> Result<InputIds> {
    let wrong = |what: String| FileError(format!("{}: {what}", path.display()));
    let bytes = ssa_files::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| wrong(format!("is not a complete safetensors file: {error}")))?;
    let view = file.tensor(INPUT_IDS).map_err(|_| {
        let names: Vec<_> = file.iter().map(|(name, _)| name).collect();
        wrong(format!("has no tensor `{INPUT_IDS}`, only: {}", names.join(", ")))
    })?;
    let [batch, tokens] = *view.shape() else {
        return Err(
            wrong(format!("`{INPUT_IDS}` has shape {:?}, expected [B, T]", view.shape())).into()
        );
    };
    if batch * tokens == 0 {
        return Err(wrong(format!(
            "`{INPUT_IDS}` has shape {:?}: there are no tokens",
            view.shape()
        ))
        .into());
    }
    let ids: Vec<i64> = match view.dtype() {
        Dtype::I32 => {
            view.data().as_chunks().0.iter().map(|&id| i32::from_le_bytes(id).into()).collect()
        }
        Dtype::I64 => view.data().as_chunks().0.iter().map(|&id| i64::from_le_bytes(id)).collect(),
        other => {
            return Err(wrong(format!(
                "`{INPUT_IDS}` is stored as {other:?}, expected I32 or I64"
            ))
            .into());
        }
    };
    let known = |id: i64| u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size);
    let check = |(position, &id): (usize, &i64)| {
        known(id).ok_or_else(|| {
            let (row, token) = (position / tokens, position % tokens);
            wrong(format!(
                "`{INPUT_IDS}` has {id} at row {row}, token {token}; the ids of this model are in \
                 0..{vocab_size}"
            ))
        })
    };
    let ids = ids.iter().enumerate().map(check).collect::<Result<_, _>>()?;
    Ok(InputIds { ids, batch, tokens })
}

/// A tensor to write: `f32` values with a shape.
#[derive(Debug)]
pub(crate) struct OutputTensor {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl OutputTensor {
    pub(crate) fn new(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { shape: shape.to_vec(), bytes }
    }

    pub(crate) fn scalar(value: f64) -> Self {
        Self::new(&[], &[value as f32])
    }
}

impl View for &OutputTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes named tensors.
///
/// # Errors
/// Same as [`write_whole`].
pub(crate) fn write_tensors(path: &Path, tensors: &[(String, OutputTensor)]) -> Result<()> {
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let bytes =
        safetensors::serialize(views, None).context("cannot serialize the output tensors")?;
    write_whole(path, &bytes)
}
