//! What the selections of a call keep, by layer.

use super::PageIndices;
use super::cuda::DeviceTotals;
use crate::{Device, KernelError, Result};

/// Sums over the selections of each layer of a call. On a GPU they are added up there and read
/// once.
pub struct PageTotals {
    /// Number of selections of each layer.
    selections: Vec<u64>,
    sums: Sums,
}

enum Sums {
    /// Kept mass and pages of each layer.
    Host(Vec<(f64, u64)>),
    /// Nothing before the first selection.
    Cuda(Option<DeviceTotals>),
}

/// The sums of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerTotals {
    /// Selections: one for every query and key/value head.
    pub selections: u64,
    /// Pages that they selected.
    pub pages: u64,
    /// Estimated attention mass that they keep, each at most 1.
    pub kept_mass: f64,
}

impl PageTotals {
    /// Sums of nothing, for so many layers.
    pub fn new(device: &Device, layers: usize) -> Self {
        let sums = match device {
            Device::Cpu => Sums::Host(vec![(0.0, 0); layers]),
            Device::Cuda(_) => Sums::Cuda(None),
        };
        Self { selections: vec![0; layers], sums }
    }

    /// Adds the selections of a layer.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if there is no such layer, or if they are on another device;
    /// [`KernelError::OutOfMemory`].
    pub fn add(&mut self, layer: usize, pages: &PageIndices) -> Result<()> {
        const OP: &str = "PageTotals::add";
        let layers = self.selections.len();
        if layer >= layers {
            return Err(KernelError::value(OP, "layer", format!("below {layers}"), layer));
        }
        match &mut self.sums {
            Sums::Host(sums) => {
                let pages = pages.host(OP)?;
                self.selections[layer] += pages.kept_mass().len() as u64;
                sums[layer].0 += pages.kept_mass().iter().map(|&mass| f64::from(mass)).sum::<f64>();
                sums[layer].1 += pages.total() as u64;
            }
            Sums::Cuda(totals) => {
                let kept = pages.device_kept(OP)?;
                let totals = match totals {
                    Some(totals) => totals,
                    None => totals.insert(DeviceTotals::new(kept.gpu(), layers)?),
                };
                self.selections[layer] += kept.len() as u64;
                totals.add(layer, kept)?;
            }
        }
        Ok(())
    }

    /// The sums of every layer; waits for a GPU that has some.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if work queued before has failed.
    pub fn read(&self) -> Result<Vec<LayerTotals>> {
        let sums = match &self.sums {
            Sums::Host(sums) => sums.clone(),
            Sums::Cuda(Some(totals)) => totals.read()?,
            Sums::Cuda(None) => vec![(0.0, 0); self.selections.len()],
        };
        let layers = self.selections.iter().zip(sums);
        let totals =
            |(&selections, (kept_mass, pages))| LayerTotals { selections, pages, kept_mass };
        Ok(layers.map(totals).collect())
    }
}
