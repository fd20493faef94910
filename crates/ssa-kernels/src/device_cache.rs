//! Tables on GPUs that depend on data of the host.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Result;
use crate::cuda::{Buffer, Gpu};

/// Tables that GPU kernels look up. Each is built when a kernel first asks for it and lives as long
/// as the data that it depends on, which owns the cache.
///
/// The type of a key says which table it is, its value says for which parameters.
#[derive(Debug, Default)]
pub(crate) struct DeviceCache(Mutex<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    key: Box<dyn Any + Send>,
    table: Arc<Buffer>,
}

impl DeviceCache {
    /// The table of this key on a GPU.
    ///
    /// # Errors
    /// [`KernelError::OutOfMemory`](crate::KernelError::OutOfMemory) if the GPU has no room for it.
    pub(crate) fn get<K: PartialEq + Send + 'static, T: Copy>(
        &self,
        gpu: &Gpu,
        key: K,
        build: impl FnOnce() -> Vec<T>,
    ) -> Result<Arc<Buffer>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A batch has a dozen tables at most.
        let found = entries
            .iter()
            .find(|entry| entry.table.gpu() == gpu && entry.key.downcast_ref() == Some(&key));
        if let Some(entry) = found {
            return Ok(entry.table.clone());
        }
        let table = Arc::new(gpu.upload(&build())?);
        entries.push(Entry { key: Box::new(key), table: table.clone() });
        Ok(table)
    }
}
