//! NVRTC: from CUDA C++ to machine code, with the compiler's report on registers.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use cudarc::nvrtc::sys;

use super::library::Library;
use super::module::{Define, Module};
use crate::{KernelError, Result};

/// A module that was compiled ahead of time, for a check.
#[derive(Clone, Debug)]
pub struct CompiledModule {
    /// Name of the module and its macros.
    pub name: String,
    /// Machine code.
    pub cubin: Vec<u8>,
    /// Seconds it took.
    pub seconds: f64,
    /// Every kernel with what the compiler reports of it.
    pub kernels: Vec<KernelReport>,
}

/// What the compiler reports of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelReport {
    /// Name of the kernel.
    pub name: String,
    /// Registers of a thread.
    pub registers: usize,
    /// Bytes of spill stores and loads.
    pub spilled: usize,
    /// Bytes of the stack of a thread.
    pub stack: usize,
}

/// Compiles every variant of these modules for an architecture such as `sm_90a`. No GPU is needed.
///
/// # Errors
/// [`KernelError::Library`] without NVRTC, [`KernelError::Compile`] with the compiler's messages.
pub fn compile_all(modules: &[&Module], arch: &str) -> Result<Vec<CompiledModule>> {
    Library::Nvrtc.load()?;
    let variants = modules
        .iter()
        .flat_map(|module| module.variants.iter().map(move |defines| (*module, *defines)));
    variants
        .map(|(module, defines)| {
            let start = std::time::Instant::now();
            let Compiled { cubin, log } = compile(module, defines, arch)?;
            let macros: String =
                defines.iter().map(|(name, value)| format!(" {name}={value}")).collect();
            Ok(CompiledModule {
                name: format!("{}{macros}", module.name),
                cubin,
                seconds: start.elapsed().as_secs_f64(),
                kernels: reports(&log),
            })
        })
        .collect()
}

/// Machine code and the compiler's log.
pub(super) struct Compiled {
    pub(super) cubin: Vec<u8>,
    log: String,
}

/// The options of a compilation, part of the key under which its result is kept.
pub(super) fn options(defines: &[Define], arch: &str) -> Vec<String> {
    let fixed = [
        "--std=c++17".to_owned(),
        // Generic lambdas take no annotation.
        "--device-as-default-execution-space".to_owned(),
        "--ptxas-options=-v".to_owned(),
        format!("--gpu-architecture={arch}"),
    ];
    fixed
        .into_iter()
        .chain(defines.iter().map(|(name, value)| format!("-D{name}={value}")))
        .collect()
}

pub(super) fn compile(module: &Module, defines: &[Define], arch: &str) -> Result<Compiled> {
    let failed =
        |log: String| KernelError::Compile { module: module.name, arch: arch.to_owned(), log };
    let text = |text: &str| {
        CString::new(text).map_err(|_| failed("a source contains a zero byte".to_owned()))
    };
    let (source, name) = (text(module.source)?, text(&format!("{}.cu", module.name))?);
    let headers = module.header_texts();
    let header_texts: Vec<CString> =
        headers.iter().map(|(_, header)| text(header)).collect::<Result<_>>()?;
    let header_names: Vec<CString> =
        headers.iter().map(|(name, _)| text(name)).collect::<Result<_>>()?;
    let options: Vec<CString> =
        options(defines, arch).iter().map(|option| text(option)).collect::<Result<_>>()?;

    let program = Program::new(&source, &name, &header_texts, &header_names)
        .map_err(|status| failed(format!("{status:?}")))?;
    let pointers = pointers(&options);
    // SAFETY: the program is open and the options are strings that live until the call returns.
    let status =
        unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
    let log = program.log();
    if status != sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(failed(if log.is_empty() { format!("{status:?}") } else { log }));
    }
    let cubin = program.cubin().map_err(|status| failed(format!("{status:?}")))?;
    Ok(Compiled { cubin, log })
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn new(
        source: &CStr,
        name: &CStr,
        texts: &[CString],
        names: &[CString],
    ) -> Result<Self, sys::nvrtcResult> {
        let mut program = ptr::null_mut();
        let (texts, names) = (pointers(texts), pointers(names));
        // SAFETY: all arguments are strings, or lists of as many strings as is said, and the call
        // copies them.
        let status = unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                source.as_ptr(),
                name.as_ptr(),
                texts.len() as i32,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        if status == sys::nvrtcResult::NVRTC_SUCCESS { Ok(Self(program)) } else { Err(status) }
    }

    fn log(&self) -> String {
        let mut size = 0;
        // SAFETY: the program is open.
        let status = unsafe { sys::nvrtcGetProgramLogSize(self.0, &raw mut size) };
        if status != sys::nvrtcResult::NVRTC_SUCCESS {
            return String::new();
        }
        let mut log = vec![0_u8; size];
        // SAFETY: the buffer has the size that the library asked for.
        let status = unsafe { sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast()) };
        if status != sys::nvrtcResult::NVRTC_SUCCESS {
            return String::new();
        }
        String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned()
    }

    fn cubin(&self) -> Result<Vec<u8>, sys::nvrtcResult> {
        let mut size = 0;
        // SAFETY: the program is open and compiled.
        let status = unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) };
        if status != sys::nvrtcResult::NVRTC_SUCCESS {
            return Err(status);
        }
        let mut cubin = vec![0_u8; size];
        // SAFETY: the buffer has the size that the library asked for.
        let status = unsafe { sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()) };
        if status == sys::nvrtcResult::NVRTC_SUCCESS { Ok(cubin) } else { Err(status) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is open and not used after this.
        let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

/// Reads the assembler's verbose log: one paragraph per kernel.
fn reports(log: &str) -> Vec<KernelReport> {
    let number_before = |line: &str, what: &str| -> Option<usize> {
        line.split(what)
            .next()
            .filter(|before| before.len() < line.len())?
            .split_whitespace()
            .last()?
            .parse()
            .ok()
    };
    let mut kernels: Vec<KernelReport> = Vec::new();
    for line in log.lines() {
        if let Some(name) =
            line.split("Compiling entry function '").nth(1).and_then(|rest| rest.split('\'').next())
        {
            kernels.push(KernelReport { name: name.to_owned(), ..KernelReport::default() });
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        if let Some(stack) = number_before(line, " bytes stack frame") {
            kernel.stack = stack;
            let spills = [" bytes spill stores", " bytes spill loads"];
            kernel.spilled = spills.iter().filter_map(|what| number_before(line, what)).sum();
        }
        if let Some(registers) = number_before(line, " registers") {
            kernel.registers = registers;
        }
    }
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_log_is_read() {
        let log = "ptxas info    : 16 bytes gmem\n\
                   ptxas info    : Compiling entry function 'a' for 'sm_90a'\n\
                   ptxas info    : Function properties for a\n\
                   ptxas . 8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                   ptxas info    : Used 26 registers, used 1 barriers, 32 bytes smem\n\
                   ptxas info    : Compiling entry function 'b' for 'sm_90a'\n\
                   ptxas . 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info    : Used 255 registers\n";
        let a = KernelReport { name: "a".to_owned(), registers: 26, spilled: 16, stack: 8 };
        let b = KernelReport { name: "b".to_owned(), registers: 255, spilled: 0, stack: 0 };
        assert_eq!(reports(log), [a, b]);
    }
}
