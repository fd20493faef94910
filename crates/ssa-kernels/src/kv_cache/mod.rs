//! Keys and values of the tokens of many sequences, in pages.
//!
//! A page holds `page_size` consecutive tokens of one sequence, in all layers, and is a block of
//! sparse attention: block `c` of a sequence is the `c`-th page of its table. The mean of the keys
//! of a page is computed once, when the page is complete, from its keys in token order. Means are
//! kept in pages of their own, [`MEANS_PER_PAGE`] consecutive blocks of a sequence in each, so that
//! scoring all blocks of a sequence reads long runs of memory.
//!
//! A call of a model first [extends](KvCache::extend) its sequences, which reserves their pages,
//! then writes keys and values layer by layer with [`append_kv`]. Attention reads them through the
//! [`CachedSequences`] that the extension returned.
//!
//! K and V of all layers but the first depend on the attention that computed the layers before. The
//! cache does not know which that was: its user does.
//!
//! [`append_kv`]: crate::ops::attention::cached::append_kv

mod device_pages;
mod device_tables;
mod host_pages;
mod page_tables;
mod shape;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

pub use page_tables::SequenceId;
pub use shape::{KvShape, MEANS_PER_PAGE};

pub(crate) use device_pages::{DeviceLayer, DevicePages, MODULE};
pub(crate) use device_tables::{CachedTokens, DeviceTables};
pub(crate) use host_pages::{HostPages, MatrixPages};
pub(crate) use page_tables::PageTable;

use crate::cuda::Gpu;
use crate::{Device, Documents, KernelError, Result, Sequences, Tensor};
use page_tables::PageTables;

/// The cached keys and values of a model; the documentation of this module says how they are laid
/// out.
pub struct KvCache {
    device: Device,
    shape: KvShape,
    tables: PageTables,
    storage: Storage,
}

/// The memory of all pages.
enum Storage {
    /// `f32`, allocated page by page as sequences grow.
    Host(HostPages),
    /// `bf16`, means `f32`, allocated in full.
    Device(DevicePages),
}

/// The sequences that a call extends, and by how many tokens.
///
/// Ops over the cache take it by reference. It belongs to the cache that made it, until one of its
/// sequences changes again.
#[derive(Clone, Debug)]
pub struct CachedSequences {
    ids: Vec<SequenceId>,
    sequences: Sequences,
    device_tables: Arc<OnceLock<DeviceTables>>,
}

impl CachedSequences {
    /// Query ranges, first positions and key lengths, in the order of the call.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// The sequence of each query range.
    pub fn ids(&self) -> &[SequenceId] {
        &self.ids
    }
}

/// The keys and values of one sequence in one layer, copied out of a cache.
#[derive(Debug)]
pub struct CachedRows {
    /// `[tokens, H, D]`.
    pub keys: Tensor,
    /// `[tokens, H, D]`.
    pub values: Tensor,
    /// Means of the keys of complete pages `[pages, H, D]`.
    pub key_means: Tensor,
    /// Means of the values of complete pages `[pages, H, D]`, if the cache keeps them.
    pub value_means: Option<Tensor>,
}

impl KvCache {
    /// An empty cache for up to `capacity` tokens, in whole pages.
    ///
    /// [`KvShape::bytes_per_token`] says how much memory it takes: on the CPU as sequences grow, on
    /// a GPU at once.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if a size is 0, if a full cache would be larger than any memory,
    /// or for heads that a GPU does not support; [`KernelError::OutOfMemory`].
    pub fn new(device: &Device, shape: KvShape, capacity: usize) -> Result<Self> {
        const OP: &str = "KvCache::new";
        shape.check(OP, capacity)?;
        let pages = capacity.div_ceil(shape.page_size);
        let storage = match device {
            Device::Cpu => Storage::Host(HostPages::new(shape)),
            Device::Cuda(gpu) => Storage::Device(DevicePages::new(OP, gpu, shape, pages)?),
        };
        let tables = PageTables::new(shape.page_size, pages);
        Ok(Self { device: device.clone(), shape, tables, storage })
    }

    /// The device that holds the pages.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its sizes.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// The number of tokens that all pages together can hold.
    pub fn capacity(&self) -> usize {
        self.tables.capacity() * self.shape.page_size
    }

    /// The number of tokens that the pages without a sequence can hold.
    pub fn free(&self) -> usize {
        self.tables.free() * self.shape.page_size
    }

    /// A new sequence without tokens.
    pub fn add_sequence(&mut self) -> SequenceId {
        self.tables.add()
    }

    /// Forgets a sequence; its pages become free.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there is no such sequence.
    pub fn remove_sequence(&mut self, id: SequenceId) -> Result<()> {
        self.tables.remove(id)
    }

    /// The number of tokens of a sequence.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there is no such sequence.
    pub fn tokens(&self, id: SequenceId) -> Result<usize> {
        Ok(self.tables.get("KvCache::tokens", id)?.tokens())
    }

    /// Forgets all but the first `tokens` tokens of a sequence.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there is no such sequence, or if it is shorter.
    pub fn truncate(&mut self, id: SequenceId, tokens: usize) -> Result<()> {
        self.tables.truncate(id, tokens)
    }

    /// A new sequence with the tokens of another: a copy of its pages.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there is no such sequence; [`KernelError::CacheFull`];
    /// [`KernelError::HostMemory`].
    pub fn fork(&mut self, id: SequenceId) -> Result<SequenceId> {
        let source = self.tables.get("KvCache::fork", id)?.clone();
        let copy = self.tables.add();
        let copied = self.tables.extend(&[(copy, source.tokens())]).and_then(|()| {
            let target = self.tables.get("KvCache::fork", copy)?;
            match &mut self.storage {
                Storage::Host(pages) => pages.copy(&source, target),
                Storage::Device(pages) => pages.copy(&source, target),
            }
        });
        if let Err(error) = copied {
            self.tables.remove(copy)?;
            return Err(error);
        }
        Ok(copy)
    }

    /// Extends sequences by so many tokens each, at least 1, and reserves their pages. The caller
    /// then writes keys and values in every layer.
    ///
    /// A failed call changes nothing.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if a sequence does not exist, occurs twice, gets no token, or
    /// would get too long; [`KernelError::CacheFull`] if there are not enough free pages;
    /// [`KernelError::HostMemory`].
    pub fn extend(&mut self, chunks: &[(SequenceId, usize)]) -> Result<CachedSequences> {
        const OP: &str = "KvCache::extend";
        let ids: Vec<SequenceId> = chunks.iter().map(|&(id, _)| id).collect();
        let firsts = ids.iter().map(|&id| Ok(self.tables.get(OP, id)?.tokens()));
        let firsts = firsts.collect::<Result<Vec<usize>>>()?;
        if let Some(index) = (1..ids.len()).find(|&index| ids[..index].contains(&ids[index])) {
            let actual = format!("{} twice", ids[index]);
            return Err(KernelError::value(OP, "chunks", "different sequences", actual));
        }
        let mut cu_seqlens = vec![0_usize];
        let mut key_lens = Vec::with_capacity(chunks.len());
        for (&(id, tokens), &first) in chunks.iter().zip(&firsts) {
            let total = cu_seqlens[cu_seqlens.len() - 1].saturating_add(tokens);
            if tokens == 0 || total.saturating_add(first) > Documents::MAX_TOKENS {
                let most = Documents::MAX_TOKENS;
                let expected = format!("1 to {most} tokens for each sequence and for all");
                let actual = format!("{tokens} tokens for {id}");
                return Err(KernelError::value(OP, "chunks", expected, actual));
            }
            cu_seqlens.push(total);
            key_lens.push(first + tokens);
        }
        let queries = Documents::from_cu_seqlens(cu_seqlens)?;
        let sequences = Sequences::new(queries, firsts, key_lens)?;
        self.tables.extend(chunks)?;
        let (pages, means) = self.tables.in_use();
        let room = match &mut self.storage {
            Storage::Host(host) => host.grow(pages, means),
            Storage::Device(device) => device.check_mean_pages(means),
        };
        if let Err(error) = room {
            for (&id, &first) in ids.iter().zip(sequences.first_positions()) {
                self.tables.truncate(id, first)?;
            }
            return Err(error);
        }
        Ok(CachedSequences { ids, sequences, device_tables: Arc::default() })
    }

    /// The keys, values and means of a sequence in a layer, on the CPU.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there is no such sequence or layer.
    pub fn rows(&self, layer: usize, id: SequenceId) -> Result<CachedRows> {
        const OP: &str = "KvCache::rows";
        self.check_layer(OP, layer)?;
        let table = self.tables.get(OP, id)?;
        match &self.storage {
            Storage::Host(pages) => pages.rows(layer, table),
            Storage::Device(pages) => pages.rows(layer, table),
        }
    }

    /// Checks that ops can use the cache together with these sequences in a layer on a device.
    pub(crate) fn check(
        &self,
        op: &'static str,
        device: &Device,
        layer: usize,
        sequences: &CachedSequences,
    ) -> Result<()> {
        if self.device != *device {
            return Err(KernelError::device(op, "cache", device, &self.device));
        }
        self.check_layer(op, layer)?;
        for (&id, &keys) in sequences.ids.iter().zip(sequences.sequences.key_lens()) {
            let tokens = self.tables.get(op, id)?.tokens();
            if tokens != keys {
                let expected = format!("{keys} tokens of {id}, as when it was extended");
                return Err(KernelError::value(op, "sequences", expected, tokens));
            }
        }
        Ok(())
    }

    fn check_layer(&self, op: &'static str, layer: usize) -> Result<()> {
        let layers = self.shape.layers;
        if layer < layers {
            return Ok(());
        }
        Err(KernelError::value(op, "layer", format!("less than {layers}"), layer))
    }

    /// The page tables of the sequences of a call, in its order.
    pub(crate) fn page_tables<'a>(
        &'a self,
        op: &'static str,
        sequences: &CachedSequences,
    ) -> Result<Vec<&'a PageTable>> {
        sequences.ids.iter().map(|&id| self.tables.get(op, id)).collect()
    }

    /// The pages in host memory.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if they are on a GPU.
    pub(crate) fn host_pages(&self) -> Result<&HostPages> {
        match &self.storage {
            Storage::Host(pages) => Ok(pages),
            Storage::Device(_) => Err(not_on(Device::Cpu, &self.device)),
        }
    }

    /// The pages in host memory, writable, and the tables of the sequences of a call.
    pub(crate) fn host_pages_mut(
        &mut self,
        op: &'static str,
        sequences: &CachedSequences,
    ) -> Result<(&mut HostPages, Vec<&PageTable>)> {
        let Self { device, tables, storage, .. } = self;
        let tables = sequences.ids.iter().map(|&id| tables.get(op, id)).collect::<Result<_>>()?;
        match storage {
            Storage::Host(pages) => Ok((pages, tables)),
            Storage::Device(_) => Err(not_on(Device::Cpu, device)),
        }
    }

    /// The pages in the memory of a GPU.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if they are on the CPU.
    pub(crate) fn device_pages(&self) -> Result<&DevicePages> {
        match &self.storage {
            Storage::Device(pages) => Ok(pages),
            Storage::Host(_) => Err(not_on("a GPU", &self.device)),
        }
    }

    /// The tables of the sequences of a call on a GPU, uploaded the first time.
    pub(crate) fn device_tables<'a>(
        &self,
        op: &'static str,
        gpu: &Gpu,
        sequences: &'a CachedSequences,
    ) -> Result<&'a DeviceTables> {
        if let Some(tables) = sequences.device_tables.get() {
            return Ok(tables);
        }
        let page_tables = self.page_tables(op, sequences)?;
        let tables = DeviceTables::new(gpu, sequences.sequences(), &page_tables)?;
        Ok(sequences.device_tables.get_or_init(|| tables))
    }

    /// The page table of a sequence.
    pub(crate) fn page_table(&self, op: &'static str, id: SequenceId) -> Result<&PageTable> {
        self.tables.get(op, id)
    }
}

/// The error for pages that are somewhere else.
fn not_on(expected: impl ToString, device: &Device) -> KernelError {
    KernelError::device("KvCache", "cache", expected, device)
}
