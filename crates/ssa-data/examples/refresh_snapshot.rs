//! Rewrites `corpus/snapshot.jsonl.gz` from the repository's own text files; see
//! `corpus/README.md`.
//!
//! ```text
//! cargo run --release -p ssa-data --example refresh_snapshot [-- --allow-dirty]
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::error::Error;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode};

use ssa_data::{Document, decode_snapshot, encode_snapshot, text_bytes};

const SNAPSHOT: &str = "crates/ssa-data/corpus/snapshot.jsonl.gz";
/// File extensions of text written for this project.
const EXTENSIONS: [&str; 6] = ["rs", "md", "toml", "py", "html", "j2"];
/// Folders of generated files: outputs of the released code and of benchmark runs.
const LEFT_OUT: [&str; 2] = ["golden", "raw"];

fn main() -> ExitCode {
    match refresh() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn refresh() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let allow_dirty = match arguments.as_slice() {
        [] => false,
        [flag] if flag == "--allow-dirty" => true,
        _ => {
            return Err(
                format!("unknown arguments {arguments:?}; the only one is --allow-dirty").into()
            );
        }
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if !allow_dirty {
        refuse_dirty(&root)?;
    }

    let documents = read(&root)?;
    let mut compressed = Vec::new();
    encode_snapshot(&documents, &mut compressed)?;
    assert_eq!(decode_snapshot(&compressed)?, documents, "a snapshot round-trips");
    std::fs::write(root.join(SNAPSHOT), &compressed)?;

    let commit = git(&root, &["rev-parse", "--short", "HEAD"])?;
    println!(
        "{SNAPSHOT}: {} documents, {} bytes of text, {} bytes compressed, taken at {}",
        documents.len(),
        text_bytes(&documents),
        compressed.len(),
        commit.trim(),
    );
    for extension in EXTENSIONS {
        let of_kind: Vec<Document> = documents
            .iter()
            .filter(|document| has_extension(&document.name, extension))
            .cloned()
            .collect();
        println!(
            "  {extension:<5} {:>4} documents {:>9} bytes",
            of_kind.len(),
            text_bytes(&of_kind)
        );
    }
    Ok(())
}

/// The snapshot must match a commit. The snapshot file itself may differ, so that this can run
/// twice.
fn refuse_dirty(root: &Path) -> Result<(), Box<dyn Error>> {
    let exclude = format!(":!{SNAPSHOT}");
    let changes =
        git(root, &["status", "--porcelain", "--untracked-files=no", "--", ".", &exclude])?;
    if changes.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the working tree has changes; commit them first or pass --allow-dirty:\n{changes}"
    )
    .into())
}

/// The selected files that git tracks, sorted by path, without empty ones.
fn read(root: &Path) -> Result<Vec<Document>, Box<dyn Error>> {
    let listing = git(root, &["ls-files", "-z"])?;
    let mut names: Vec<&str> =
        listing.split_terminator('\0').filter(|name| is_chosen(name)).collect();
    names.sort_unstable();
    let mut documents = Vec::with_capacity(names.len());
    for name in names {
        let text = std::fs::read(root.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if !text.is_empty() {
            documents.push(Document { name: name.to_owned(), text });
        }
    }
    Ok(documents)
}

fn is_chosen(name: &str) -> bool {
    let left_out = |part: &OsStr| LEFT_OUT.iter().any(|folder| part == OsStr::new(folder));
    let is_license = Path::new(name)
        .file_name()
        .is_some_and(|file| file.as_encoded_bytes().starts_with(b"LICENSE"));
    EXTENSIONS.iter().any(|extension| has_extension(name, extension))
        && !is_license
        && !Path::new(name).iter().any(left_out)
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension() == Some(OsStr::new(extension))
}

fn git(root: &Path, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output()?;
    if !output.status.success() {
        return Err(
            format!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
