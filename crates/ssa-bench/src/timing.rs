//! Timing of calls on a device.

use std::time::Instant;

use serde::Serialize;
use ssa_kernels::cuda::Stopwatch;
use ssa_kernels::{Device, KernelError};

/// The number and duration of samples.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Target number of samples.
    pub samples: usize,
    /// Time limit in seconds, once there are `fewest` samples.
    pub seconds: f64,
    /// Minimum number of samples.
    pub fewest: usize,
    /// Minimum duration of a sample in seconds; a sample may have several calls.
    pub sample_seconds: f64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { samples: 20, seconds: 1.5, fewest: 3, sample_seconds: 0.005 }
    }
}

/// The time of one call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// Median over the samples in milliseconds.
    pub ms: f64,
    /// The fastest sample in milliseconds.
    pub fastest: f64,
    /// Number of samples.
    pub samples: usize,
    /// Calls per sample.
    pub calls: usize,
}

impl Timing {
    /// The rate for `work` per call, in units per second.
    pub fn per_second(&self, work: f64) -> f64 {
        work / (self.ms * 1e-3)
    }
}

/// Measures calls on a device: with events on a GPU, with the wall clock on the CPU.
///
/// A sample is a sequence of queued calls, so that launch overhead is hidden if the device is
/// slower, as in training.
#[derive(Clone, Debug)]
pub struct Meter {
    device: Device,
    effort: Effort,
}

impl Meter {
    /// Creates a meter for a device.
    pub fn new(device: &Device, effort: Effort) -> Self {
        Self { device: device.clone(), effort }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Measures `call`, whose argument is the index of one of `sets` input sets. The sets rotate,
    /// after each was used once to warm up.
    ///
    /// # Errors
    /// The first error of `call`, or of the GPU.
    pub fn measure(
        &self,
        sets: usize,
        mut call: impl FnMut(usize) -> Result<(), KernelError>,
    ) -> Result<Timing, KernelError> {
        (0..sets).try_for_each(&mut call)?;
        let once = self.time(|| (0..sets).try_for_each(&mut call))? / sets as f64;
        let calls = (self.effort.sample_seconds / once.max(1e-9)).round().clamp(1.0, 1e6) as usize;
        let mut turns = (0..sets).cycle();
        let mut samples = Vec::with_capacity(self.effort.samples);
        let start = Instant::now();
        while samples.len() < self.effort.samples
            && (samples.len() < self.effort.fewest
                || start.elapsed().as_secs_f64() < self.effort.seconds)
        {
            let seconds = self.time(|| turns.by_ref().take(calls).try_for_each(&mut call))?;
            samples.push(seconds * 1e3 / calls as f64);
        }
        let [ms, fastest] = [median(&mut samples), samples.first().copied().unwrap_or(f64::NAN)];
        Ok(Timing { ms, fastest, samples: samples.len(), calls })
    }

    /// The number of input sets of this many bytes that exceed twice the L2 cache.
    pub fn sets(&self, bytes: usize) -> usize {
        match &self.device {
            Device::Cuda(gpu) => {
                (2 * gpu.properties().l2_cache).div_ceil(bytes.max(1)).clamp(2, 16)
            }
            _ => 2,
        }
    }

    /// The duration of the work in seconds.
    fn time(&self, work: impl FnOnce() -> Result<(), KernelError>) -> Result<f64, KernelError> {
        if let Device::Cuda(gpu) = &self.device {
            let stopwatch = Stopwatch::start(gpu)?;
            work()?;
            return Ok(stopwatch.stop()? * 1e-3);
        }
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// The median; sorts the samples. NaN without samples.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match samples.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => samples[middle],
        _ => f64::midpoint(samples[middle - 1], samples[middle]),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&mut []).is_nan());
    }

    #[test]
    fn sleep_is_measured_and_inputs_rotate() {
        let effort = Effort { samples: 5, seconds: 10.0, fewest: 1, sample_seconds: 0.0 };
        let mut used = [0; 3];
        let timing = Meter::new(&Device::Cpu, effort).measure(3, |set| {
            used[set] += 1;
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        });
        let timing = timing.unwrap();
        assert!(timing.fastest >= 2.0 && timing.ms >= timing.fastest, "{timing:?}");
        // Warm-up, estimate, then five samples of one call.
        assert_eq!((timing.samples, timing.calls, used), (5, 1, [4, 4, 3]));
    }

    #[test]
    fn a_slow_call_is_sampled_less() {
        let effort = Effort { samples: 100, seconds: 0.01, fewest: 2, sample_seconds: 0.0 };
        let nap = |_| {
            std::thread::sleep(Duration::from_millis(10));
            Ok(())
        };
        assert_eq!(Meter::new(&Device::Cpu, effort).measure(1, nap).unwrap().samples, 2);
    }
}
