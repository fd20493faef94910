//! Reading and writing safetensors files tensor by tensor.
//!
//! Memory never holds the whole file, nor two copies of a tensor: bytes pass through a small
//! buffer, because converting between bytes and `f32` needs a copy anyway.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;
use ssa_files::StagedFile;
use ssa_kernels::Tensor;

use crate::{ModelError, Result};

/// Buffer size in bytes: large enough to amortize system calls, small enough to stay in cache.
const BUFFER: usize = 1 << 20;
/// The limit of the format.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes of the length field at the start of the file.
const PREFIX: u64 = 8;

/// Appends the values decoded from some bytes.
type Decoder = fn(&[u8], &mut Vec<f32>);

/// An open safetensors file with a checked header.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    data_start: u64,
}

impl TensorFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Damaged`] if the header cannot be read or does not match
    /// the size of the file.
    pub fn open(path: &Path) -> Result<Self> {
        let io_error = || ModelError::io("read", path);
        let damaged = |problem: String| ModelError::Damaged { path: path.to_owned(), problem };
        let mut file = ssa_files::open(path).map_err(io_error())?;
        let length = file.metadata().map_err(io_error())?.len();
        if length < PREFIX {
            return Err(damaged(format!("it has only {length} bytes")));
        }
        let mut prefix = [0; PREFIX as usize];
        file.read_exact(&mut prefix).map_err(io_error())?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > LONGEST_HEADER.min(length - PREFIX) {
            let problem =
                format!("it announces a header of {header_length} bytes but has {length} in all");
            return Err(damaged(problem));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(io_error())?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|reason| damaged(format!("its header is not valid: {reason}")))?;
        let data_start = PREFIX + header_length;
        let [actual, expected] = [length - data_start, header.data_len() as u64];
        if actual != expected {
            let problem = format!("it has {actual} bytes of tensors, its header says {expected}");
            return Err(damaged(problem));
        }
        Ok(Self { path: path.to_owned(), file, header, data_start })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors, in file order.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The value of a metadata entry of the header.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        Some(self.header.metadata().as_ref()?.get(key)?)
    }

    /// Checks that a tensor exists, has this shape and has a supported dtype, without reading it.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::TensorShape`] or [`ModelError::TensorDtype`].
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let info = self.info(name)?;
        if info.shape != shape {
            return Err(ModelError::TensorShape {
                path: self.path.clone(),
                name: name.to_owned(),
                expected: shape.to_vec(),
                actual: info.shape.clone(),
            });
        }
        self.decoder(name, info.dtype).map(|_| ())
    }

    /// Reads a tensor stored as `F32`, `BF16` or `F16`. All three convert to `f32` without
    /// rounding; NaN and infinity are kept.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::TensorDtype`] or [`ModelError::Io`].
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let info = self.info(name)?;
        let decode = self.decoder(name, info.dtype)?;
        let (start, end) = info.data_offsets;
        let mut values = Vec::with_capacity(info.shape.iter().product());
        let mut file = &self.file;
        let io_error = || ModelError::io("read", &self.path);
        file.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(io_error())?;
        let mut buffer = vec![0; BUFFER.min(end - start)];
        let mut left = end - start;
        while left > 0 {
            let bytes = &mut buffer[..left.min(BUFFER)];
            file.read_exact(bytes).map_err(io_error())?;
            decode(bytes, &mut values);
            left -= bytes.len();
        }
        Ok(Tensor::from_vec(values, info.shape.as_slice())?)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.header.info(name).ok_or_else(|| ModelError::MissingTensor {
            path: self.path.clone(),
            name: name.to_owned(),
        })
    }

    fn decoder(&self, name: &str, dtype: Dtype) -> Result<Decoder> {
        match dtype {
            Dtype::F32 => Ok(|bytes, values| {
                values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)))
            }),
            Dtype::BF16 => Ok(|bytes, values| {
                values.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()));
            }),
            Dtype::F16 => Ok(|bytes, values| {
                values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()));
            }),
            other => Err(ModelError::TensorDtype {
                path: self.path.clone(),
                name: name.to_owned(),
                dtype: other.to_string(),
            }),
        }
    }
}

/// Writes tensors as `F32` into a safetensors file, in the given order, and replaces the file
/// atomically. The same tensors and metadata give the same bytes.
///
/// # Errors
/// [`ModelError::File`], or [`ModelError::Kernel`] if a tensor is not on the CPU.
pub fn write_tensors(
    path: &Path,
    tensors: &[(String, &Tensor)],
    metadata: &[(&str, &str)],
) -> Result<()> {
    let tensors = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), tensor.shape(), tensor.as_slice()?)))
        .collect::<Result<Vec<_>>>()?;
    let header = header(&tensors, metadata);
    let write = |file: &mut StagedFile| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let mut buffer = vec![0; BUFFER];
        for (_, _, values) in &tensors {
            for values in values.chunks(BUFFER / size_of::<f32>()) {
                let bytes = &mut buffer[..size_of_val(values)];
                for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                    *bytes = value.to_le_bytes();
                }
                file.write_all(bytes)?;
            }
        }
        Ok(())
    };
    Ok(ssa_files::write_with(path, write)?)
}

/// Keys are sorted, so that the order of the tensors decides nothing but their places.
fn header(tensors: &[(&str, &[usize], &[f32])], metadata: &[(&str, &str)]) -> String {
    let metadata: BTreeMap<_, _> = metadata.iter().copied().collect();
    let mut header = BTreeMap::from([("__metadata__", json!(metadata))]);
    let mut start = 0;
    for &(name, shape, values) in tensors {
        let end = start + size_of_val(values);
        let info = json!({ "data_offsets": [start, end], "dtype": "F32", "shape": shape });
        header.insert(name, info);
        start = end;
    }
    let mut header = json!(header).to_string();
    // Readers that memory-map the file need aligned tensors.
    let aligned = header.len().next_multiple_of(PREFIX as usize);
    header.extend(std::iter::repeat_n(' ', aligned - header.len()));
    header
}
