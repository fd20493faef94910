//! Matrix products through cuBLASLt, in the row-major terms of the rest of the crate.
//!
//! The library offers several algorithms for a product. The first time a product of some shape is
//! asked for, the best candidates are timed and the fastest is kept, in memory and in the cache
//! directory: the same shape runs the same algorithm in every later process, and results can be
//! repeated bit for bit. Algorithms that add partial sums in the output's type are left out.

mod algorithms;
mod descriptors;
mod key;
mod state;

pub(super) use state::Matmul;

use std::marker::PhantomData;

use cudarc::cublaslt::{result, sys};

use self::descriptors::Descriptors;
use self::key::Key;
use super::{Gpu, Memory, Stopwatch};
use crate::{DType, KernelError, Result};

/// Name of the op in errors.
const OP: &str = "matmul";

/// Bytes of scratch memory that cuBLASLt may use; NVIDIA recommends 32 MiB on Hopper.
const WORKSPACE: usize = 32 << 20;
/// Runs of a candidate that are timed together, after one that is not.
const RUNS: usize = 3;

/// The position of a row-major matrix in a tensor, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// The first element.
    pub(crate) offset: usize,
    /// Rows and columns.
    pub(crate) sizes: [usize; 2],
    /// Distance between rows.
    pub(crate) stride: usize,
}

/// A matrix at the beginning of a tensor, its rows without gaps.
impl From<[usize; 2]> for Rows {
    fn from(sizes: [usize; 2]) -> Self {
        Self { offset: 0, sizes, stride: sizes[1] }
    }
}

impl Rows {
    /// Refuses rows that overlap or end outside of the memory.
    fn check(&self, memory: &Memory, dtype: DType) -> Result<()> {
        let Self { offset, sizes: [rows, columns], stride } = *self;
        let end = rows.checked_sub(1).map_or(Some(0), |last| {
            last.checked_mul(stride)?.checked_add(offset)?.checked_add(columns)
        });
        let inside = end.is_some_and(|end| end <= memory.bytes() / dtype.size());
        if inside && (columns <= stride || rows <= 1) {
            return Ok(());
        }
        let expected = format!("{} elements with rows that do not overlap", end.unwrap_or(0));
        let actual = format!("{} elements, {self:?}", memory.bytes() / dtype.size());
        Err(KernelError::value(OP, "matrix", expected, actual))
    }

    /// The address of the first element.
    fn address(&self, memory: &Memory, dtype: DType) -> u64 {
        memory.address() + (self.offset * dtype.size()) as u64
    }
}

/// A matrix that is read.
#[derive(Clone, Copy)]
pub(crate) struct GpuMatrix<'a> {
    address: u64,
    dtype: DType,
    rows: Rows,
    transposed: bool,
    memory: PhantomData<&'a Memory>,
}

impl<'a> GpuMatrix<'a> {
    /// Rows inside memory that holds elements of this type.
    pub(crate) fn new(memory: &'a Memory, dtype: DType, rows: Rows) -> Result<Self> {
        rows.check(memory, dtype)?;
        let address = rows.address(memory, dtype);
        Ok(Self { address, dtype, rows, transposed: false, memory: PhantomData })
    }

    /// The transposed matrix.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as the product sees them.
    fn sizes(&self) -> [usize; 2] {
        let [rows, columns] = self.rows.sizes;
        if self.transposed { [columns, rows] } else { [rows, columns] }
    }
}

/// A matrix that is written.
pub(crate) struct GpuMatrixMut<'a> {
    address: u64,
    dtype: DType,
    rows: Rows,
    /// Whether the product is added to what is there.
    add: bool,
    memory: PhantomData<&'a mut Memory>,
}

impl<'a> GpuMatrixMut<'a> {
    /// As [`GpuMatrix::new`], for memory that the caller owns.
    pub(crate) fn new(memory: &'a Memory, dtype: DType, rows: Rows, add: bool) -> Result<Self> {
        rows.check(memory, dtype)?;
        let address = rows.address(memory, dtype);
        Ok(Self { address, dtype, rows, add, memory: PhantomData })
    }
}

/// `out = alpha a b`, or `out += alpha a b` where `out` is added to; sums in `f32`.
///
/// # Errors
/// [`KernelError::Argument`] if sizes or types do not agree,
/// [`KernelError::Cuda`] if the library refuses the product, [`KernelError::OutOfMemory`] if there
/// is no room for its workspace.
pub(crate) fn matmul(
    gpu: &Gpu,
    out: GpuMatrixMut<'_>,
    alpha: f32,
    a: GpuMatrix<'_>,
    b: GpuMatrix<'_>,
) -> Result<()> {
    let ([m, k], [inner, n]) = (a.sizes(), b.sizes());
    if inner != k {
        return Err(KernelError::shape(OP, "b", format!("[{k}, ..]"), &b.sizes()));
    }
    if out.rows.sizes != [m, n] {
        return Err(KernelError::shape(OP, "out", format!("[{m}, {n}]"), &out.rows.sizes));
    }
    if a.dtype != b.dtype {
        return Err(KernelError::value(OP, "b", format!("{} elements", a.dtype), b.dtype));
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    let alignment =
        [a.address, b.address, out.address].map(|address| 1 << address.trailing_zeros().min(8));
    let key = Key {
        sizes: [m, n, k],
        row_strides: [a.rows.stride, b.rows.stride, out.rows.stride],
        transposed: [a.transposed, b.transposed],
        inputs: a.dtype,
        output: out.dtype,
        add: out.add,
        alignment,
    };
    let mut state = gpu.matmul_state();
    let (handle, inputs) = (state.handle(), [a.address, b.address]);
    let workspace = Memory::uninitialized(gpu, WORKSPACE)?;
    let product = Product { gpu, handle, workspace, alpha, inputs };
    let (descriptors, algorithm) = state
        .product(key, |descriptors, candidates| fastest(candidates, &key, descriptors, &product))?;
    product.run(descriptors, algorithm, out.address, out.add)
}

/// Times the candidates on the real inputs, writing to scratch: the output may hold a sum that is
/// not finished.
fn fastest(
    candidates: &[sys::cublasLtMatmulAlgo_t],
    key: &Key,
    descriptors: &Descriptors,
    product: &Product<'_>,
) -> Result<sys::cublasLtMatmulAlgo_t> {
    let ([m, n, _], [_, _, stride]) = (key.sizes, key.row_strides);
    let scratch = Memory::uninitialized(product.gpu, ((m - 1) * stride + n) * key.output.size())?;
    let mut best = (f64::INFINITY, candidates[0]);
    for algorithm in candidates {
        if product.run(descriptors, algorithm, scratch.address(), key.add).is_err() {
            continue;
        }
        let stopwatch = Stopwatch::start(product.gpu)?;
        for _ in 0..RUNS {
            product.run(descriptors, algorithm, scratch.address(), key.add)?;
        }
        let time = stopwatch.stop()?;
        if time < best.0 {
            best = (time, *algorithm);
        }
    }
    Ok(best.1)
}

/// The parts of a product that do not depend on the algorithm.
struct Product<'a> {
    gpu: &'a Gpu,
    handle: sys::cublasLtHandle_t,
    workspace: Memory,
    alpha: f32,
    /// Addresses of a and b.
    inputs: [u64; 2],
}

impl Product<'_> {
    fn run(
        &self,
        descriptors: &Descriptors,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        out: u64,
        add: bool,
    ) -> Result<()> {
        let stream = self.gpu.stream()?;
        let beta: f32 = if add { 1.0 } else { 0.0 };
        let pointer = |address: u64| address as *mut std::ffi::c_void;
        let [a, b] = self.inputs;
        // A row-major matrix read by columns is its transpose, and (a b)ᵀ = bᵀ aᵀ: so b goes first.
        // SAFETY: descriptors and handle are open; the matrices are inside their tensors (checked
        // on construction); the workspace has the size that the algorithm was chosen for.
        let status = unsafe {
            result::matmul(
                self.handle,
                descriptors.operation,
                (&raw const self.alpha).cast(),
                (&raw const beta).cast(),
                pointer(b),
                descriptors.first,
                pointer(a),
                descriptors.second,
                pointer(out),
                descriptors.output,
                pointer(out),
                descriptors.output,
                algorithm,
                pointer(self.workspace.address()),
                WORKSPACE,
                stream.cast(),
            )
        };
        status.map_err(|error| failed("cublasLtMatmul", error))
    }
}

fn failed(call: &'static str, error: result::CublasError) -> KernelError {
    KernelError::Cuda { call, message: format!("{:?}", error.0) }
}
