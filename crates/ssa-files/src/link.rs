//! Symbolic links.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::Result;
use crate::directory::sync_parent;
use crate::intercept::perform;
use crate::operation::Operation;
use crate::staged::write;
use crate::temporary;

/// Creates or replaces the symbolic link `link` to `target`. On file systems without links, `link`
/// becomes a file that contains the target.
///
/// # Errors
/// [`FileError`](crate::FileError) names the link.
pub fn replace_link(target: &str, link: &Path) -> Result<()> {
    let stage = || {
        temporary::name()
            .make_in(link.parent().unwrap_or(Path::new("")), |staged| symlink(target, staged))
    };
    match perform(Operation::Link, link, stage) {
        Ok(staged) => {
            let rename = || staged.into_temp_path().persist(link).map_err(|failed| failed.error);
            perform(Operation::Rename, link, rename)?;
            sync_parent(link)
        }
        Err(error) if has_no_links(&error.source) => write(link, target),
        Err(error) => Err(error),
    }
}

/// FAT and some network file systems report one of these.
fn has_no_links(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied)
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Links need a privilege on some systems.
#[cfg(not(unix))]
fn symlink(_target: &str, _link: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
