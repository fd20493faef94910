//! Matrix products through cuBLASLt, in the row-major terms of the rest of the crate.
//!
//! The library offers several algorithms for a product. The first time a product of some shape is
//! asked for, the best candidates are timed and the fastest is kept, in memory and in the cache
//! directory: the same shape runs the same algorithm in every later process, and results can be
//! repeated bit for bit. Algorithms that add partial sums in the output's type are left out.

mod algorithms;
mod descriptors;

use std::collections::HashMap;
use std::marker::PhantomData;

use cudarc::cublaslt::{result, sys};

use self::algorithms::Algorithms;
use self::descriptors::Descriptors;
use super::cache::KernelCache;
use super::{Buffer, Gpu, GpuProperties};
use crate::{DType, KernelError, Result, Tensor};

/// What cuBLASLt may use beside the matrices; NVIDIA advises 32 MiB on Hopper.
const WORKSPACE: usize = 32 << 20;

/// A matrix that is read: row-major, `row_stride` elements from row to row, perhaps to be taken
/// transposed.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    address: u64,
    dtype: DType,
    rows: usize,
    columns: usize,
    row_stride: usize,
    transposed: bool,
    tensor: PhantomData<&'a Tensor>,
}

impl<'a> Matrix<'a> {
    /// `rows` rows inside a tensor, the first of them `offset` elements from its beginning.
    pub(crate) fn with_row_stride(
        tensor: &'a Tensor,
        offset: usize,
        [rows, columns]: [usize; 2],
        row_stride: usize,
    ) -> Result<Self> {
        assert_fits(tensor.len(), offset, [rows, columns], row_stride);
        let dtype = tensor.dtype();
        let address = tensor.device_input()? + (offset * dtype.size()) as u64;
        Ok(Self {
            address,
            dtype,
            rows,
            columns,
            row_stride,
            transposed: false,
            tensor: PhantomData,
        })
    }

    /// A whole tensor as a matrix.
    pub(crate) fn new(tensor: &'a Tensor, sizes: [usize; 2]) -> Result<Self> {
        Self::with_row_stride(tensor, 0, sizes, sizes[1])
    }

    /// The transposed matrix.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as the product sees them.
    fn sizes(&self) -> [usize; 2] {
        if self.transposed { [self.columns, self.rows] } else { [self.rows, self.columns] }
    }
}

/// A matrix that is written.
pub(crate) struct MatrixMut<'a> {
    address: u64,
    dtype: DType,
    rows: usize,
    columns: usize,
    row_stride: usize,
    /// Whether the product is added to what is there.
    add: bool,
    tensor: PhantomData<&'a mut Tensor>,
}

impl<'a> MatrixMut<'a> {
    /// A whole tensor, overwritten.
    pub(crate) fn output(tensor: &'a mut Tensor, [rows, columns]: [usize; 2]) -> Result<Self> {
        assert_fits(tensor.len(), 0, [rows, columns], columns);
        let (address, dtype) = (tensor.device_output()?, tensor.dtype());
        Ok(Self {
            address,
            dtype,
            rows,
            columns,
            row_stride: columns,
            add: false,
            tensor: PhantomData,
        })
    }

    /// A whole tensor, added to.
    pub(crate) fn accumulate(tensor: &'a mut Tensor, [rows, columns]: [usize; 2]) -> Result<Self> {
        assert_fits(tensor.len(), 0, [rows, columns], columns);
        let ((address, add), dtype) = (tensor.device_accumulate()?, tensor.dtype());
        Ok(Self { address, dtype, rows, columns, row_stride: columns, add, tensor: PhantomData })
    }

    /// Some rows of a tensor, added to; `offset` and `row_stride` as in
    /// [`Matrix::with_row_stride`].
    pub(crate) fn accumulate_rows(
        tensor: &'a mut Tensor,
        offset: usize,
        [rows, columns]: [usize; 2],
        row_stride: usize,
    ) -> Result<Self> {
        assert_fits(tensor.len(), offset, [rows, columns], row_stride);
        let dtype = tensor.dtype();
        let address = tensor.device_in_place()? + (offset * dtype.size()) as u64;
        Ok(Self { address, dtype, rows, columns, row_stride, add: true, tensor: PhantomData })
    }
}

fn assert_fits(len: usize, offset: usize, [rows, columns]: [usize; 2], row_stride: usize) {
    assert!(columns <= row_stride || rows <= 1, "rows of a matrix do not overlap");
    assert!(
        rows == 0 || offset + (rows - 1) * row_stride + columns <= len,
        "a matrix lies inside its tensor"
    );
}

/// Everything that decides which algorithm is fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Rows, columns and inner size of the row-major product.
    sizes: [usize; 3],
    row_strides: [usize; 3],
    transposed: [bool; 2],
    inputs: DType,
    output: DType,
    add: bool,
    /// Alignment of the three addresses, at most 256 bytes.
    alignment: [u32; 3],
}

/// The state of the library on one GPU.
pub(super) struct Matmul {
    handle: sys::cublasLtHandle_t,
    products: HashMap<Key, (Descriptors, sys::cublasLtMatmulAlgo_t)>,
    algorithms: Algorithms,
}

// SAFETY: the handle may be used from any thread, one at a time; the lock around this struct sees
// to it.
unsafe impl Send for Matmul {}

impl Matmul {
    pub(super) fn new(properties: &GpuProperties, cache: &KernelCache) -> Result<Self> {
        let handle = result::create_handle().map_err(|error| failed("cublasLtCreate", error))?;
        let algorithms = Algorithms::open(properties, cache);
        Ok(Self { handle, products: HashMap::new(), algorithms })
    }
}

/// `out = alpha a b`, or `out += alpha a b` where `out` is added to; sums in `f32`.
///
/// # Errors
/// [`KernelError::Cuda`] if the library refuses the product, [`KernelError::OutOfMemory`] for its
/// workspace.
pub(crate) fn matmul(
    gpu: &Gpu,
    out: MatrixMut<'_>,
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
) -> Result<()> {
    let ([m, k], [k2, n]) = (a.sizes(), b.sizes());
    assert_eq!(k, k2, "inner sizes of a product agree");
    assert_eq!([out.rows, out.columns], [m, n], "output of a product has its shape");
    assert_eq!(a.dtype, b.dtype, "inputs of a product have one type");
    if m == 0 || n == 0 {
        return Ok(());
    }
    let alignment =
        [a.address, b.address, out.address].map(|address| 1 << address.trailing_zeros().min(8));
    let key = Key {
        sizes: [m, n, k],
        row_strides: [a.row_stride, b.row_stride, out.row_stride],
        transposed: [a.transposed, b.transposed],
        inputs: a.dtype,
        output: out.dtype,
        add: out.add,
        alignment,
    };
    let mut state = gpu.matmul_state();
    let Matmul { handle, products, algorithms } = &mut *state;
    let addresses = [a.address, b.address, out.address];
    let call =
        Call { gpu, handle: *handle, workspace: gpu.alloc::<u8>(WORKSPACE)?, alpha, addresses };
    let (descriptors, algorithm) = match products.entry(key) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => {
            let descriptors = Descriptors::new(&key)?;
            let algorithm = algorithms.choose(&key, &descriptors, &call)?;
            entry.insert((descriptors, algorithm))
        }
    };
    call.run(descriptors, algorithm, out.address, out.add)
}

/// The parts of a call that do not depend on the algorithm.
struct Call<'a> {
    gpu: &'a Gpu,
    handle: sys::cublasLtHandle_t,
    workspace: Buffer,
    alpha: f32,
    /// Of a, b and the output.
    addresses: [u64; 3],
}

impl Call<'_> {
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
        let [a, b, _] = self.addresses;
        // A row-major matrix read by columns is its transpose, and (a b)ᵀ = bᵀ aᵀ: so b goes first.
        // SAFETY: descriptors and handle are open; the matrices lie inside their tensors (checked
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
