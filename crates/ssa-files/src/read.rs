//! Reading files that the user names, without blocking or reading forever.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long to wait for a writer of a named pipe.
const PIPE_WAIT: Duration = Duration::from_secs(10);

/// Opens a file, or a named pipe if it gets a writer within ten seconds.
///
/// # Errors
/// As [`File::open`]; also for a pipe without a writer, and for a device, which may be endless.
pub fn open(path: &Path) -> io::Result<File> {
    let metadata = path.metadata()?;
    if metadata.is_file() || metadata.is_dir() {
        return File::open(path);
    }
    if is_device(&metadata) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a device, not a file"));
    }
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    // Opening a pipe blocks until there is a writer, so a separate thread does it and may be left
    // waiting.
    thread::Builder::new().spawn(move || sender.send(File::open(path)))?;
    let nobody = || io::Error::other("a pipe without a writer");
    receiver.recv_timeout(PIPE_WAIT).unwrap_or_else(|_| Err(nobody()))
}

/// All bytes of a file.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All text of a file.
///
/// # Errors
/// As [`open`]; [`ErrorKind::InvalidData`] if it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(unix)]
fn is_device(metadata: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_char_device() || metadata.file_type().is_block_device()
}

#[cfg(not(unix))]
fn is_device(_: &Metadata) -> bool {
    false
}
