//! The tokens of a call and the pages of their sequences, as kernels look them up.

use super::page_tables::PageTable;
use super::shape::MEANS_PER_PAGE;
use crate::cuda::{Buffer, Gpu, Input, parameter_group};
use crate::{Result, Sequences};

parameter_group! {
    /// The tokens of a launch: `cached.cuh` explains the tables.
    pub(crate) struct CachedTokens<'a> {
        /// The row of the tables that is the sequence of each token of the call.
        sequences: Input<'a, i32>,
        /// The position of each token of the call.
        positions: Input<'a, i32>,
        /// `[sequences, blocks]`.
        page_tables: Input<'a, i32>,
        /// `[sequences, blocks / MEANS_PER_PAGE, rounded up]`.
        mean_tables: Input<'a, i32>,
        /// Columns of `page_tables`.
        blocks: i32,
        /// The first token of the launch.
        first: i32,
    }
}

/// Tables on a GPU.
#[derive(Debug)]
pub(crate) struct DeviceTables {
    sequences: Buffer<i32>,
    positions: Buffer<i32>,
    page_tables: Buffer<i32>,
    mean_tables: Buffer<i32>,
    blocks: usize,
}

impl DeviceTables {
    /// The tables of the queries of a call.
    pub(super) fn new(gpu: &Gpu, queries: &Sequences, tables: &[&PageTable]) -> Result<Self> {
        let blocks = tables.iter().map(|table| table.pages().len()).max().unwrap_or(0).max(1);
        let sequences: Vec<i32> = (0..)
            .zip(queries.ranges())
            .flat_map(|(sequence, range)| std::iter::repeat_n(sequence, range.len()))
            .collect();
        let positions: Vec<i32> = queries.positions().map(|position| position as i32).collect();
        Ok(Self {
            sequences: gpu.upload(&sequences)?,
            positions: gpu.upload(&positions)?,
            page_tables: gpu.upload(&rows(tables, PageTable::pages, blocks))?,
            mean_tables: gpu.upload(&mean_rows(tables, blocks))?,
            blocks,
        })
    }

    /// Tables of so many sequences of up to `blocks` blocks and as many tokens of each, to be
    /// [set](Self::set) before use.
    pub(crate) fn for_steps(
        gpu: &Gpu,
        [sequences, tokens_each]: [usize; 2],
        blocks: usize,
    ) -> Result<Self> {
        let rows = (0..sequences as i32).flat_map(|row| std::iter::repeat_n(row, tokens_each));
        Ok(Self {
            sequences: gpu.upload(&rows.collect::<Vec<i32>>())?,
            positions: gpu.alloc(sequences * tokens_each)?,
            page_tables: gpu.alloc(sequences * blocks)?,
            mean_tables: gpu.alloc(sequences * blocks.div_ceil(MEANS_PER_PAGE))?,
            blocks,
        })
    }

    /// Sets the position of each token and the pages of the sequences.
    pub(crate) fn set(&self, positions: &[usize], tables: &[&PageTable]) -> Result<()> {
        let positions: Vec<i32> = positions.iter().map(|&position| position as i32).collect();
        self.positions.shared_write(&positions)?;
        self.page_tables.shared_write(&rows(tables, PageTable::pages, self.blocks))?;
        self.mean_tables.shared_write(&mean_rows(tables, self.blocks))
    }

    /// Number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.sequences.len()
    }

    /// The most blocks of a sequence.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The positions of the tokens.
    pub(crate) fn positions(&self) -> &Buffer<i32> {
        &self.positions
    }

    /// The tokens from `first` on.
    pub(crate) fn tokens(&self, first: usize) -> CachedTokens<'_> {
        CachedTokens {
            sequences: self.sequences.input(),
            positions: self.positions.input(),
            page_tables: self.page_tables.input(),
            mean_tables: self.mean_tables.input(),
            blocks: self.blocks as i32,
            first: first as i32,
        }
    }
}

fn mean_rows(tables: &[&PageTable], blocks: usize) -> Vec<i32> {
    rows(tables, PageTable::mean_pages, blocks.div_ceil(MEANS_PER_PAGE))
}

/// The pages of each table as a row of `columns`, cut or filled with 0.
fn rows(tables: &[&PageTable], pages: fn(&PageTable) -> &[u32], columns: usize) -> Vec<i32> {
    let mut rows = vec![0; tables.len() * columns];
    for (row, table) in rows.chunks_exact_mut(columns.max(1)).zip(tables) {
        row.iter_mut().zip(pages(table)).for_each(|(entry, &page)| *entry = page as i32);
    }
    rows
}
