//! Pages in host memory.

use super::CachedRows;
use super::page_tables::PageTable;
use super::shape::{KvShape, MEANS_PER_PAGE, matrices_len};
use crate::cpu::register_tile::padded;
use crate::host_memory::reserved;
use crate::{Result, Tensor};

/// The pages of all sequences: `f32`, each page an allocation of its own.
pub(crate) struct HostPages {
    shape: KvShape,
    tokens: MatrixPages,
    means: MatrixPages,
}

/// Pages of rows of keys and values: tokens, or means of blocks.
///
/// For each layer and head a page holds the keys as a matrix `[D, padded rows]`, so that the scores
/// of all its keys are one row times one matrix, and the values as a matrix `[rows, padded D]`.
/// Padding, and rows that were never written, hold anything.
pub(crate) struct MatrixPages {
    pages: Vec<Vec<f32>>,
    page_len: usize,
    kv_heads: usize,
    head_dim: usize,
    rows: usize,
    values: bool,
}

impl HostPages {
    pub(super) fn new(shape: KvShape) -> Self {
        let KvShape { kv_heads, head_dim, page_size, value_means, .. } = shape;
        let pages = |page_len, rows, values| MatrixPages {
            pages: Vec::new(),
            page_len,
            kv_heads,
            head_dim,
            rows,
            values,
        };
        let tokens = pages(shape.host_page_len(), page_size, true);
        let means = pages(shape.host_means_len(), MEANS_PER_PAGE, value_means);
        Self { shape, tokens, means }
    }

    /// Allocates pages up to these numbers.
    pub(super) fn grow(&mut self, pages: usize, mean_pages: usize) -> Result<()> {
        self.tokens.grow(pages)?;
        self.means.grow(mean_pages)
    }

    /// Copies all pages of a sequence to those of another of the same length.
    pub(super) fn copy(&mut self, source: &PageTable, target: &PageTable) -> Result<()> {
        let last = |pages: &[u32]| pages.iter().max().map_or(0, |&page| page as usize + 1);
        self.grow(last(target.pages()), last(target.mean_pages()))?;
        self.tokens.copy(source.pages(), target.pages());
        self.means.copy(source.mean_pages(), target.mean_pages());
        Ok(())
    }

    /// The pages of tokens.
    pub(crate) fn tokens(&self) -> &MatrixPages {
        &self.tokens
    }

    /// The pages of means.
    pub(crate) fn means(&self) -> &MatrixPages {
        &self.means
    }

    /// Writes the key and the value `[D]` of one token and head.
    pub(crate) fn write(
        &mut self,
        table: &PageTable,
        [layer, position, head]: [usize; 3],
        [key, value]: [&[f32]; 2],
    ) {
        let page_size = self.shape.page_size;
        let page = table.pages()[position / page_size];
        self.tokens.write_key(page, [layer, head, position % page_size], key.iter().copied());
        self.tokens.write_value(page, [layer, head, position % page_size], value.iter().copied());
    }

    /// Computes the means of a complete block: sums in token order, times the inverse of their
    /// number.
    pub(crate) fn complete(&mut self, table: &PageTable, layer: usize, block: usize) {
        let KvShape { kv_heads, head_dim, page_size, value_means, .. } = self.shape;
        let Self { tokens, means, .. } = self;
        let factor = 1.0 / page_size as f32;
        let page = table.pages()[block];
        let mean_page = table.mean_pages()[block / MEANS_PER_PAGE];
        for head in 0..kv_heads {
            let place = [layer, head, block % MEANS_PER_PAGE];
            let keys = tokens.keys(page, layer, head).chunks_exact(padded(page_size));
            let mean = keys.map(|keys| factor * keys[..page_size].iter().sum::<f32>());
            means.write_key(mean_page, place, mean);
            if value_means {
                let mut sum = vec![0.0; head_dim];
                for values in tokens.values(page, layer, head).chunks_exact(padded(head_dim)) {
                    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
                means.write_value(mean_page, place, sum.into_iter().map(|sum| factor * sum));
            }
        }
    }

    /// Copies what a sequence has in a layer.
    pub(super) fn rows(&self, layer: usize, table: &PageTable) -> Result<CachedRows> {
        let KvShape { kv_heads, head_dim, page_size, value_means, .. } = self.shape;
        let tensor = |rows: usize, read: &dyn Fn(usize, usize, &mut Vec<f32>)| {
            let mut data = reserved(rows * kv_heads * head_dim)?;
            for row in 0..rows {
                (0..kv_heads).for_each(|head| read(row, head, &mut data));
            }
            Tensor::from_vec(data, [rows, kv_heads, head_dim])
        };
        let (tokens, pages, means) = (table.tokens(), table.pages(), table.mean_pages());
        let blocks = tokens / page_size;
        let token_keys = |row: usize, head: usize, data: &mut Vec<f32>| {
            data.extend(self.tokens.key(pages[row / page_size], [layer, head, row % page_size]));
        };
        let token_values = |row: usize, head: usize, data: &mut Vec<f32>| {
            data.extend(self.tokens.value(pages[row / page_size], [layer, head, row % page_size]));
        };
        let place =
            |row: usize, head| (means[row / MEANS_PER_PAGE], [layer, head, row % MEANS_PER_PAGE]);
        let mean_keys = |row: usize, head: usize, data: &mut Vec<f32>| {
            let (page, place) = place(row, head);
            data.extend(self.means.key(page, place));
        };
        let mean_values = |row: usize, head: usize, data: &mut Vec<f32>| {
            let (page, place) = place(row, head);
            data.extend(self.means.value(page, place));
        };
        Ok(CachedRows {
            keys: tensor(tokens, &token_keys)?,
            values: tensor(tokens, &token_values)?,
            key_means: tensor(blocks, &mean_keys)?,
            value_means: value_means.then(|| tensor(blocks, &mean_values)).transpose()?,
        })
    }
}

impl MatrixPages {
    /// Rows of a page.
    pub(crate) fn page_rows(&self) -> usize {
        self.rows
    }

    /// The keys `[D, padded rows]` of a page.
    #[inline]
    pub(crate) fn keys(&self, page: u32, layer: usize, head: usize) -> &[f32] {
        let start = self.start(layer, head);
        &self.pages[page as usize][start..start + self.keys_len()]
    }

    /// The values `[rows, padded D]` of a page.
    #[inline]
    pub(crate) fn values(&self, page: u32, layer: usize, head: usize) -> &[f32] {
        let start = self.start(layer, head) + self.keys_len();
        &self.pages[page as usize][start..start + self.rows * padded(self.head_dim)]
    }

    fn keys_len(&self) -> usize {
        self.head_dim * padded(self.rows)
    }

    fn start(&self, layer: usize, head: usize) -> usize {
        (layer * self.kv_heads + head) * matrices_len(self.rows, self.head_dim, self.values)
    }

    fn key(&self, page: u32, [layer, head, row]: [usize; 3]) -> impl Iterator<Item = f32> + '_ {
        self.keys(page, layer, head).iter().skip(row).step_by(padded(self.rows)).copied()
    }

    fn value(&self, page: u32, [layer, head, row]: [usize; 3]) -> impl Iterator<Item = f32> + '_ {
        self.values(page, layer, head)[row * padded(self.head_dim)..][..self.head_dim]
            .iter()
            .copied()
    }

    fn write_key(
        &mut self,
        page: u32,
        [layer, head, row]: [usize; 3],
        key: impl Iterator<Item = f32>,
    ) {
        let (start, width) = (self.start(layer, head), padded(self.rows));
        let keys = &mut self.pages[page as usize][start + row..];
        keys.iter_mut().step_by(width).zip(key).for_each(|(out, key)| *out = key);
    }

    fn write_value(
        &mut self,
        page: u32,
        [layer, head, row]: [usize; 3],
        value: impl Iterator<Item = f32>,
    ) {
        let start = self.start(layer, head) + self.keys_len() + row * padded(self.head_dim);
        let values = &mut self.pages[page as usize][start..];
        values.iter_mut().zip(value).for_each(|(out, value)| *out = value);
    }

    fn grow(&mut self, pages: usize) -> Result<()> {
        while self.pages.len() < pages {
            let mut page = reserved(self.page_len)?;
            // Tests must fail if a row counts that was never written.
            let unwritten = if cfg!(any(test, debug_assertions)) { f32::NAN } else { 0.0 };
            page.resize(self.page_len, unwritten);
            self.pages.push(page);
        }
        Ok(())
    }

    fn copy(&mut self, sources: &[u32], targets: &[u32]) {
        for (&source, &target) in sources.iter().zip(targets) {
            let [source, target] = [source, target].map(|page| page as usize);
            if let Ok([source, target]) = self.pages.get_disjoint_mut([source, target]) {
                target.copy_from_slice(source);
            }
        }
    }
}
