//! What cuBLASLt wants to know of a product.

use cudarc::cublaslt::{result, sys};

use super::failed;
use super::key::Key;
use crate::{DType, Result};

/// Descriptions of a product and of its matrices, in the column-major terms of the library: `first`
/// is b, `second` is a.
pub(super) struct Descriptors {
    pub(super) operation: sys::cublasLtMatmulDesc_t,
    pub(super) first: sys::cublasLtMatrixLayout_t,
    pub(super) second: sys::cublasLtMatrixLayout_t,
    pub(super) output: sys::cublasLtMatrixLayout_t,
}

impl Descriptors {
    pub(super) fn new(key: &Key) -> Result<Self> {
        let [m, n, k] = key.sizes;
        let [a_stride, b_stride, out_stride] = key.row_strides;
        let [a_transposed, b_transposed] = key.transposed;
        let layout = |dtype: DType, rows: usize, columns: usize, stride: usize| {
            result::create_matrix_layout(
                data_type(dtype),
                rows as u64,
                columns as u64,
                stride as i64,
            )
            .map_err(|error| failed("cublasLtMatrixLayoutCreate", error))
        };
        // As stored: a row-major matrix of r rows is a column-major one of r columns.
        let stored =
            |rows, columns, transposed| if transposed { (rows, columns) } else { (columns, rows) };
        let (b_rows, b_columns) = stored(k, n, b_transposed);
        let (a_rows, a_columns) = stored(m, k, a_transposed);
        let operation = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )
        .map_err(|error| failed("cublasLtMatmulDescCreate", error))?;
        let descriptors = Self {
            operation,
            first: layout(key.inputs, b_rows, b_columns, b_stride)?,
            second: layout(key.inputs, a_rows, a_columns, a_stride)?,
            output: layout(key.output, n, m, out_stride)?,
        };
        use sys::cublasLtMatmulDescAttributes_t::{
            CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB,
        };
        descriptors.transpose(CUBLASLT_MATMUL_DESC_TRANSA, b_transposed)?;
        descriptors.transpose(CUBLASLT_MATMUL_DESC_TRANSB, a_transposed)?;
        Ok(descriptors)
    }

    fn transpose(
        &self,
        which: sys::cublasLtMatmulDescAttributes_t,
        transposed: bool,
    ) -> Result<()> {
        // CUBLAS_OP_T and CUBLAS_OP_N.
        let value = i32::from(transposed);
        // SAFETY: the descriptor is open and the attribute is a 32-bit number.
        unsafe {
            result::set_matmul_desc_attribute(
                self.operation,
                which,
                (&raw const value).cast(),
                size_of::<i32>(),
            )
        }
        .map_err(|error| failed("cublasLtMatmulDescSetAttribute", error))
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: the descriptor is open and not used after this.
        let _ = unsafe { result::destroy_matmul_desc(self.operation) };
        for layout in [self.first, self.second, self.output] {
            // SAFETY: as above.
            let _ = unsafe { result::destroy_matrix_layout(layout) };
        }
    }
}

/// What the search for algorithms may assume.
pub(super) struct Preference(pub(super) sys::cublasLtMatmulPreference_t);

impl Preference {
    pub(super) fn new(key: &Key, workspace: usize) -> Result<Self> {
        let preference = result::create_matmul_pref()
            .map_err(|error| failed("cublasLtMatmulPreferenceCreate", error))?;
        let preference = Self(preference);
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let [a, b, out] = key.alignment;
        // Partial sums in the type that is computed in, or none.
        let schemes = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out)?;
        Ok(preference)
    }

    fn set<T: Copy>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: T,
    ) -> Result<()> {
        // SAFETY: the preference is open; each attribute is set with a value of its documented
        // type.
        unsafe {
            result::set_matmul_pref_attribute(
                self.0,
                attribute,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        }
        .map_err(|error| failed("cublasLtMatmulPreferenceSetAttribute", error))
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: the preference is open and not used after this.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn data_type(dtype: DType) -> sys::cudaDataType {
    match dtype {
        DType::F32 => sys::cudaDataType::CUDA_R_32F,
        DType::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        DType::I16 => sys::cudaDataType::CUDA_R_16I,
    }
}
