//! The state of the library on one GPU.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use cudarc::cublaslt::{result, sys};

use super::algorithms::Algorithms;
use super::descriptors::Descriptors;
use super::failed;
use super::key::Key;
use crate::Result;
use crate::cuda::GpuProperties;
use crate::cuda::cache::KernelCache;

/// An opened library, the products computed so far and their algorithms.
pub(crate) struct Matmul {
    handle: sys::cublasLtHandle_t,
    products: HashMap<Key, (Descriptors, sys::cublasLtMatmulAlgo_t)>,
    algorithms: Algorithms,
}

// SAFETY: the handle may be used from any thread, one at a time; the lock around this struct sees
// to it.
unsafe impl Send for Matmul {}

impl Matmul {
    /// # Errors
    /// [`KernelError::Cuda`](crate::KernelError::Cuda) if the library cannot be opened.
    pub(crate) fn new(properties: &GpuProperties, cache: &KernelCache) -> Result<Self> {
        let handle = result::create_handle().map_err(|error| failed("cublasLtCreate", error))?;
        let algorithms = Algorithms::open(properties, cache);
        Ok(Self { handle, products: HashMap::new(), algorithms })
    }

    /// The algorithms chosen so far.
    pub(crate) fn algorithms(&self) -> String {
        self.algorithms.to_text()
    }

    /// Uses algorithms that another process has chosen.
    pub(crate) fn adopt(&mut self, algorithms: &str) {
        self.algorithms.adopt(algorithms);
        self.products.clear();
    }

    /// The handle of the library.
    pub(super) fn handle(&self) -> sys::cublasLtHandle_t {
        self.handle
    }

    /// How a product is computed. `fastest` chooses among several algorithms, the first time in
    /// all processes that share a cache.
    ///
    /// # Errors
    /// That of `fastest`, and [`KernelError::Cuda`](crate::KernelError::Cuda) if the library
    /// refuses the product.
    pub(super) fn product(
        &mut self,
        key: Key,
        fastest: impl FnOnce(
            &Descriptors,
            &[sys::cublasLtMatmulAlgo_t],
        ) -> Result<sys::cublasLtMatmulAlgo_t>,
    ) -> Result<&(Descriptors, sys::cublasLtMatmulAlgo_t)> {
        match self.products.entry(key) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let descriptors = Descriptors::new(&key)?;
                let algorithm = self.algorithms.choose(&key, &descriptors, self.handle, fastest)?;
                Ok(entry.insert((descriptors, algorithm)))
            }
        }
    }
}
