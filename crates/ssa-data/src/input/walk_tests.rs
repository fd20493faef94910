use std::fs;

use ssa_text::text_bytes;
use tempfile::TempDir;

use super::*;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn paths<const N: usize>(folder: &TempDir, names: [&str; N]) -> Vec<PathBuf> {
    names.map(|name| folder.path().join(name)).to_vec()
}

/// The names of the documents below the folder.
fn names(folder: &TempDir, documents: &[Document]) -> Vec<String> {
    let prefix = format!("{}/", folder.path().display());
    documents.iter().map(|document| document.name.replacen(&prefix, "", 1)).collect()
}

fn message(paths: &[PathBuf]) -> String {
    read_documents(paths).unwrap_err().to_string()
}

#[test]
fn directories_are_walked_in_sorted_order_and_skip_non_text() {
    let folder = folder(&[
        ("b.txt", b"b"),
        ("a/z", b"z"),
        ("a/deeper/y.md", b"y"),
        ("c", b"latin \xe9"),
        ("empty", b""),
        ("binary", b"PK\0\x01"),
        (".hidden", b"h"),
        (".git/config", b"h"),
    ]);
    let documents = read_documents(&[folder.path().to_owned()]).unwrap();
    assert_eq!(names(&folder, &documents), ["a/deeper/y.md", "a/z", "b.txt", "c"]);
    assert_eq!(documents[3].text, b"latin \xe9");
    assert_eq!(text_bytes(&documents), 1 + 1 + 1 + 7);
}

#[test]
fn files_that_contradict_their_names_are_refused_by_name() {
    let folder =
        folder(&[("a.jsonl.gz", b"\x1f\x8b"), ("b.txt.zst", b"x"), ("c.parquet", b"PAR1")]);
    for (path, cause) in paths(&folder, ["a.jsonl.gz", "b.txt.zst", "c.parquet"]).into_iter().zip([
        "the compressed file is truncated",
        "its name ends with .zst, but its first bytes do not match",
        "EOF: Parquet file too small",
    ]) {
        let error = message(std::slice::from_ref(&path));
        assert!(error.starts_with(&format!("{}: {cause}", path.display())), "{error}");
    }
}

#[test]
fn a_nul_beyond_the_probe_is_binary_too() {
    let size = kind::PROBE_BYTES + 10;
    let mut late = vec![b'x'; size];
    let folder = folder(&[("text", &late)]);
    late[size - 1] = 0;
    fs::write(folder.path().join("late"), late).unwrap();
    let documents = read_documents(&[folder.path().to_owned()]).unwrap();
    assert_eq!(names(&folder, &documents), ["text"]);
    assert_eq!(documents[0].text.len(), size);
}

#[test]
fn a_named_file_is_always_read_and_order_is_as_given() {
    let folder = folder(&[("z", b"z"), ("binary", b"a\0b"), (".hidden", b"h")]);
    let documents = read_documents(&paths(&folder, ["z", "binary", ".hidden"])).unwrap();
    assert_eq!(names(&folder, &documents), ["z", "binary", ".hidden"]);
    // Also if a walk has skipped it before.
    let documents = read_documents(&paths(&folder, ["", "binary"])).unwrap();
    assert_eq!(names(&folder, &documents), ["z", "binary"]);
}

#[test]
fn a_file_is_read_once() {
    let folder = folder(&[("d/a", b"a"), ("d/b", b"b")]);
    let documents = read_documents(&paths(&folder, ["d/b", "d", "d/../d", "d/a"])).unwrap();
    assert_eq!(names(&folder, &documents), ["d/b", "d/a"]);
}

#[test]
fn errors_name_the_path_and_the_remedy() {
    let folder = folder(&[("empty", b""), ("only/binary", b"\0"), ("only/.hidden", b"h")]);
    let at = |name: &str| folder.path().join(name).display().to_string();

    assert!(message(&[]).contains("name at least one file or directory"));
    assert_eq!(
        message(&paths(&folder, ["nowhere"])),
        format!(
            "{}: no such file or directory\nhint: check the spelling; relative paths start at the \
             working directory",
            at("nowhere")
        )
    );
    assert_eq!(
        message(&paths(&folder, ["empty"])),
        format!(
            "{}: the file is empty\nhint: leave it out, or check the program that wrote it",
            at("empty")
        )
    );
    let error = message(&paths(&folder, ["only"]));
    assert!(error.starts_with(&format!(
        "{}: nothing to read: hidden entries and empty, binary or unsupported files",
        at("only")
    )));
    assert!(error.ends_with("name such a file explicitly to read it"), "{error}");
    // A directory without text is an error even if other inputs have text, unless its files were
    // already read under another name.
    assert!(message(&paths(&folder, ["only/.hidden", "only"])).contains("nothing to read"));
    assert_eq!(read_documents(&paths(&folder, ["only/binary", "only"])).unwrap().len(), 1);
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn links_are_followed_without_looping_or_reading_twice() {
        let folder = folder(&[("d/a", b"a"), ("elsewhere", b"e")]);
        let link = |target: &str, name: &str| symlink(target, folder.path().join(name)).unwrap();
        link("..", "d/loop");
        link(".", "d/self");
        link("own-end", "d/own-end");
        link("nothing", "d/dangling");
        link("../elsewhere", "d/link");
        link("a", "d/same");
        let documents = read_documents(&paths(&folder, ["d"])).unwrap();
        assert_eq!(names(&folder, &documents), ["d/a", "d/link"]);
    }

    #[test]
    fn names_need_not_be_utf8() {
        let folder = folder(&[]);
        let name = OsStr::from_bytes(b"caf\xe9");
        fs::write(folder.path().join(name), "x").unwrap();
        let documents = read_documents(&[folder.path().to_owned()]).unwrap();
        assert_eq!(names(&folder, &documents), ["caf\u{fffd}"]);
        assert!(
            message(&[folder.path().join(OsStr::from_bytes(b"\xff"))])
                .contains("\u{fffd}: no such file")
        );
    }

    #[test]
    fn non_files_are_skipped_in_a_directory_and_refused_when_named() {
        let folder = folder(&[("a", b"a")]);
        let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
        let documents = read_documents(&[folder.path().to_owned()]).unwrap();
        assert_eq!(names(&folder, &documents), ["a"]);
        let error = message(&paths(&folder, ["socket"]));
        assert!(error.contains("socket: cannot be read: "), "{error}");
        assert!(error.ends_with("\nhint: leave it out"), "{error}");
    }
}
