//! `ssa doctor`.

use anyhow::Result;
use ssa_eval::Machine;
use ssa_kernels::cuda::{self, Library, compile_all};
use ssa_kernels::ops::MODULES;

use ssa_report::number::{bytes, counted};

use super::device::kernel_cache;
use super::nccl;
use crate::args::DoctorArgs;
use crate::display::print;

pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    if !args.compile.is_empty() {
        return compile(args);
    }
    print(&format!("ssa       {} ({})", env!("CARGO_PKG_VERSION"), env!("SSA_COMMIT")))?;
    let Machine { cpu, threads } = Machine::current(rayon::current_num_threads());
    print(&format!("cpu       {cpu}, {}", counted(threads, "thread")))?;
    for library in Library::ALL {
        let found = if library == Library::Nccl { nccl::find() } else { library.status().found };
        let line = match found {
            Ok(file) => {
                let path = file.path.map(|path| path.display().to_string()).unwrap_or_default();
                format!("{} {path}", file.version)
            }
            Err(error) => format!("missing: {error}"),
        };
        print(&format!("{:9} {line}", library.name()))?;
    }
    devices()?;
    let cache = kernel_cache();
    let (kernels, size) = cache.contents();
    print(&match cache.directory() {
        Some(path) => {
            format!("kernels   {kernels} compiled, {} in {}", bytes(size), path.display())
        }
        None => "kernels   not cached on disk: set HOME or SSA_CACHE_DIR".to_owned(),
    })
}

fn devices() -> Result<()> {
    let count = match cuda::count() {
        Ok(count) => count,
        Err(_) => return print("devices   cpu only: NVIDIA driver not found"),
    };
    if count == 0 {
        return print(
            "devices   cpu only: the driver reports no GPU\n\
             hint: check the output of nvidia-smi, and the variable CUDA_VISIBLE_DEVICES",
        );
    }
    for ordinal in 0..count {
        let gpu = cuda::properties(ordinal)?;
        let usable = if gpu.compute_capability < 80 {
            "; too old: compute capability 8.0 is required"
        } else {
            ""
        };
        print(&format!(
            "cuda:{ordinal}    {}, {}, {} multiprocessors, {} memory, {} L2{usable}",
            gpu.name,
            gpu.arch(),
            gpu.multiprocessors,
            bytes(gpu.memory),
            bytes(gpu.l2_cache),
        ))?;
    }
    Ok(())
}

/// Compiles all kernels; needs no GPU.
fn compile(args: &DoctorArgs) -> Result<()> {
    let mut faults = 0;
    for arch in &args.compile {
        let (mut kernels, mut seconds) = (0, 0.0);
        for module in compile_all(MODULES, arch)? {
            seconds += module.seconds;
            for kernel in &module.kernels {
                kernels += 1;
                faults += usize::from(kernel.spilled > args.max_spill);
                if kernel.spilled > 0 || args.verbose {
                    print(&format!(
                        "{arch} {} {}: {} registers, {} bytes spilled, {} bytes of stack",
                        module.name, kernel.name, kernel.registers, kernel.spilled, kernel.stack
                    ))?;
                }
            }
        }
        print(&format!("{arch}: {} compiled in {seconds:.1} s", counted(kernels, "kernel")))?;
    }
    anyhow::ensure!(
        faults == 0,
        "{} spill more than {}",
        counted(faults, "kernel"),
        counted(args.max_spill, "byte")
    );
    Ok(())
}
