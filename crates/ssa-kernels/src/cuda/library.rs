//! Finding the libraries of NVIDIA, and saying what to install where one is missing.

use std::ffi::{CStr, c_int};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::{cublaslt, driver, nvrtc};
use libloading::Library as Handle;

use super::nccl::Functions;
use crate::{KernelError, Result};

/// A library that the GPU needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// `libcuda`, part of the driver.
    Driver,
    /// The run-time compiler.
    Nvrtc,
    /// Matrix products.
    CublasLt,
    /// Exchange between the GPUs of several ranks; a run on one GPU does without.
    Nccl,
}

/// What is known of a library on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryStatus {
    /// The library.
    pub library: Library,
    /// Its version and file, or why it cannot be used and what to do.
    pub found: Result<LibraryFile, KernelError>,
}

/// A library that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryFile {
    /// Version as the library reports it.
    pub version: String,
    /// Its path, if the system reports it.
    pub path: Option<PathBuf>,
}

/// What was loaded, or why not.
static LOADED: [OnceLock<Result<Handle, KernelError>>; Library::ALL.len()] =
    [const { OnceLock::new() }; Library::ALL.len()];

/// Directories searched after those of the system and of `LD_LIBRARY_PATH`.
const DIRECTORIES: [&str; 4] = [
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
    "/usr/local/cuda/targets/sbsa-linux/lib",
    "/usr/local/nvidia/lib64",
];

impl Library {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Driver, Self::Nvrtc, Self::CublasLt, Self::Nccl];

    /// Name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Driver => "libcuda",
            Self::Nvrtc => "NVRTC",
            Self::CublasLt => "cuBLASLt",
            Self::Nccl => "NCCL",
        }
    }

    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1", "libcuda.so"],
            Self::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
            Self::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
            Self::Nccl => &["libnccl.so.2", "libnccl.so"],
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Driver => {
                "install the NVIDIA driver (version 580 or newer), or run with --device cpu"
            }
            Self::Nvrtc => {
                "install the NVRTC of CUDA 13 (Debian and Ubuntu: cuda-nvrtc-13-0 of NVIDIA's \
                 repository; or pip install nvidia-cuda-nvrtc) and put its directory into \
                 LD_LIBRARY_PATH"
            }
            Self::CublasLt => {
                "install cuBLAS of CUDA 13 (Debian and Ubuntu: libcublas-13-0 of NVIDIA's \
                 repository; or pip install nvidia-cublas) and put its directory into \
                 LD_LIBRARY_PATH"
            }
            Self::Nccl => {
                "for several GPUs, install NCCL 2.18 or newer (pip install nvidia-nccl-cu13), or \
                 set SSA_NCCL to its file"
            }
        }
    }

    fn missing(self, cause: impl Into<String>) -> KernelError {
        KernelError::Library { name: self.name(), cause: cause.into(), remedy: self.remedy() }
    }

    /// Loads the library once, so that cudarc, which asks for it by its bare name and panics where
    /// that fails, finds it in memory.
    pub(crate) fn load(self) -> Result<()> {
        self.handle()?;
        if self == Self::Nccl { nccl().map(|_| ()) } else { Ok(()) }
    }

    /// Loads the library from `file`, or where it usually is, or else from the first of
    /// `directories` that has it; returns what was found. Once it is loaded, later calls find the
    /// same.
    ///
    /// # Errors
    /// [`KernelError::Library`].
    pub fn find(
        self,
        file: Option<PathBuf>,
        directories: impl FnOnce() -> Vec<PathBuf>,
    ) -> Result<LibraryFile> {
        // The status has the error.
        let _ = LOADED[self as usize].get_or_init(|| match file {
            Some(file) => self.open([file]),
            None => self.open_usual().or_else(|missing| {
                let files = directories().into_iter().flat_map(|directory| self.in_each(directory));
                self.open(files.collect::<Vec<_>>()).map_err(|_| missing)
            }),
        });
        self.status().found
    }

    /// The library, loaded once.
    fn handle(self) -> Result<&'static Handle> {
        let loaded = LOADED[self as usize].get_or_init(|| self.open_usual());
        loaded.as_ref().map_err(Clone::clone)
    }

    /// The files that it may be in a directory.
    fn in_each(self, directory: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
        self.files().iter().map(move |file| directory.as_ref().join(file))
    }

    fn open_usual(self) -> Result<Handle> {
        let bare = self.files().iter().map(PathBuf::from);
        self.open(bare.chain(DIRECTORIES.iter().flat_map(|directory| self.in_each(directory))))
    }

    /// Opens the first of these files that can be opened.
    fn open(self, files: impl IntoIterator<Item = PathBuf>) -> Result<Handle> {
        let mut first_failure = None;
        for path in files {
            // SAFETY: these libraries are made to be loaded into any program; their constructors
            // have no conditions.
            match unsafe { Handle::new(&path) } {
                Ok(handle) if self.is_whole() => return Ok(handle),
                Ok(_) => {
                    return Err(
                        self.missing("it is there, but not under a name that it is looked up by")
                    );
                }
                Err(error) => first_failure = first_failure.or(Some(system_message(&error))),
            }
        }
        Err(self.missing(first_failure.unwrap_or_default()))
    }

    /// Whether cudarc finds the library too.
    fn is_whole(self) -> bool {
        match self {
            // SAFETY: opens and closes the library, as above.
            Self::Driver => unsafe { driver::sys::is_culib_present() },
            // SAFETY: as above.
            Self::Nvrtc => unsafe { nvrtc::sys::is_culib_present() },
            // SAFETY: as above.
            Self::CublasLt => unsafe { cublaslt::sys::is_culib_present() },
            // Our own binding has it already.
            Self::Nccl => true,
        }
    }

    fn version(self) -> String {
        match self {
            Self::Driver => {
                let mut version: c_int = 0;
                // SAFETY: the library is loaded; the argument is a valid place for an int.
                let status = unsafe { driver::sys::cuDriverGetVersion(&raw mut version) };
                if status.result().is_err() {
                    return "unknown".to_owned();
                }
                format!("CUDA {}.{}", version / 1000, version % 1000 / 10)
            }
            Self::Nvrtc => {
                let (mut major, mut minor): (c_int, c_int) = (0, 0);
                // SAFETY: the library is loaded; the arguments are valid places for ints.
                let status = unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
                if status.result().is_err() {
                    return "unknown".to_owned();
                }
                format!("{major}.{minor}")
            }
            Self::CublasLt => {
                // SAFETY: the library is loaded.
                let version = unsafe { cublaslt::sys::cublasLtGetVersion() };
                format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
            }
            Self::Nccl => nccl().map(Functions::version).unwrap_or_default(),
        }
    }

    /// Looks for the library.
    pub fn status(self) -> LibraryStatus {
        let found =
            self.load().map(|()| LibraryFile { version: self.version(), path: self.loaded_from() });
        LibraryStatus { library: self, found }
    }

    /// The file that the process has mapped under one of the library's names.
    fn loaded_from(self) -> Option<PathBuf> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let stem = self.files().last()?.to_owned();
        maps.lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| path.rsplit('/').next().is_some_and(|file| file.starts_with(stem)))
            .map(PathBuf::from)
    }
}

/// The functions of NCCL, loaded once.
///
/// # Errors
/// [`KernelError::Library`] if it is missing or too old.
pub(super) fn nccl() -> Result<&'static Functions> {
    static FUNCTIONS: OnceLock<Result<Functions>> = OnceLock::new();
    let loaded = FUNCTIONS.get_or_init(|| {
        let handle = Library::Nccl.handle()?;
        Functions::of(handle).map_err(|cause| Library::Nccl.missing(cause))
    });
    loaded.as_ref().map_err(Clone::clone)
}

/// The message of the system. The error itself only names the failed call.
fn system_message(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The version of NVRTC, part of the key of compiled kernels.
pub(super) fn nvrtc_version() -> String {
    Library::Nvrtc.version()
}

/// The version of cuBLASLt, part of the key of the algorithms chosen.
pub(super) fn cublaslt_version() -> String {
    Library::CublasLt.version()
}

/// The text of an error of the driver.
pub(super) fn driver_message(error: driver::result::DriverError) -> String {
    let text = |text: Result<&CStr, _>| {
        text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let (name, what) = (error.error_name(), error.error_string());
    format!("{}: {}", text(name.map_err(|_| ())), text(what.map_err(|_| ())))
}
