//! The functions of NCCL that are used, and their types.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use cudarc::driver::sys::{CUdeviceptr, CUstream};
use libloading::Library as Handle;

use crate::KernelError;

/// A communicator, owned by the library.
pub(super) type Comm = *mut c_void;

/// A status: 0 is success.
pub(super) type Status = c_int;

pub(super) const SUCCESS: Status = 0;
pub(super) const IN_PROGRESS: Status = 7;

/// The type of elements that are bytes.
pub(super) const BYTE: c_int = 1;

/// The first version with all that is used: 2.18.
const OLDEST: c_int = 21_800;

/// What helps against most failures.
const HINT: &str = "hint: start again with NCCL_DEBUG=WARN for details; each rank needs a GPU, and \
                    a container needs room in /dev/shm (docker run --shm-size=1g)";

/// What identifies a communicator; one rank makes it and tells the others.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct UniqueId(pub(super) [u8; 128]);

/// `ncclConfig_t` of version 2.18. A newer library reads the size and takes its defaults for the
/// rest.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

impl Config {
    /// Calls return before they are done.
    pub(super) fn non_blocking() -> Self {
        const UNDEFINED: c_int = c_int::MIN;
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: OLDEST as c_uint,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: std::ptr::null(),
            split_share: UNDEFINED,
        }
    }
}

/// Declares the table of functions by their names and types.
macro_rules! functions {
    ($($field:ident = $name:literal: fn($($argument:ty),*);)*) => {
        /// The functions.
        pub(in crate::cuda) struct Functions {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> Status,)*
            pub(super) error_string: unsafe extern "C" fn(Status) -> *const c_char,
            pub(super) last_error: unsafe extern "C" fn(Comm) -> *const c_char,
        }

        impl Functions {
            fn load(handle: &'static Handle) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: these are the types of the functions in NVIDIA's header, since 2.18.
                    $($field: *unsafe { handle.get($name) }?,)*
                    // SAFETY: as above.
                    error_string: *unsafe { handle.get(b"ncclGetErrorString\0") }?,
                    // SAFETY: as above.
                    last_error: *unsafe { handle.get(b"ncclGetLastError\0") }?,
                })
            }
        }
    };
}

functions! {
    get_version = b"ncclGetVersion\0": fn(*mut c_int);
    get_unique_id = b"ncclGetUniqueId\0": fn(*mut UniqueId);
    init_rank = b"ncclCommInitRankConfig\0": fn(*mut Comm, c_int, UniqueId, c_int, *mut Config);
    async_error = b"ncclCommGetAsyncError\0": fn(Comm, *mut Status);
    abort = b"ncclCommAbort\0": fn(Comm);
    group_start = b"ncclGroupStart\0": fn();
    group_end = b"ncclGroupEnd\0": fn();
    send = b"ncclSend\0": fn(CUdeviceptr, usize, c_int, c_int, Comm, CUstream);
    recv = b"ncclRecv\0": fn(CUdeviceptr, usize, c_int, c_int, Comm, CUstream);
}

impl Functions {
    /// The functions of a library, or why it cannot be used.
    pub(in crate::cuda) fn of(handle: &'static Handle) -> Result<Self, String> {
        let functions = Self::load(handle).map_err(|error| error.to_string())?;
        match functions.number() {
            number if number >= OLDEST => Ok(functions),
            number => Err(format!("version {} is older than 2.18", text(number))),
        }
    }

    /// The version of the library.
    pub(in crate::cuda) fn version(&self) -> String {
        text(self.number())
    }

    fn number(&self) -> c_int {
        let mut version = 0;
        // SAFETY: the argument is a place for an int.
        match unsafe { (self.get_version)(&raw mut version) } {
            SUCCESS => version,
            _ => 0,
        }
    }

    /// The error of a call, with what the library says of the last one.
    pub(super) fn error(&self, call: &'static str, status: Status, comm: Comm) -> KernelError {
        // SAFETY: any number is a status; the text is static.
        let name = unsafe { (self.error_string)(status) };
        // SAFETY: the communicator may be null; the text lives as long as the library.
        let last = unsafe { (self.last_error)(comm) };
        let message = format!("{}: {}\n{HINT}", told(name), told(last));
        KernelError::Cuda { call, message }
    }
}

fn text(version: c_int) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

fn told(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the library returns strings that end with a zero.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_the_layout_of_version_2_18() {
        assert_eq!(size_of::<Config>(), 48);
        assert_eq!(Config::non_blocking().size, 48);
        assert_eq!([text(21_800), text(22_809), text(23_203)], ["2.18.0", "2.28.9", "2.32.3"]);
    }
}
