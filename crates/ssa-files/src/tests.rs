use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::{TempDir, tempdir};

use super::*;

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes one kind of operation inside a directory fail permanently.
fn fail(directory: &TempDir, failing: Operation, kind: ErrorKind) {
    let directory = directory.path().to_owned();
    intercept(move |operation, path| {
        let fails = operation == failing && path.starts_with(&directory);
        if fails { Err(kind.into()) } else { Ok(()) }
    });
}

#[test]
fn a_file_is_complete_or_absent() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("out.bin");
    write(&path, "one").unwrap();
    write(&path, "two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    let failed = write_with(&path, |file| {
        file.write_all(b"three")?;
        Err(ErrorKind::StorageFull.into())
    });
    let message = failed.unwrap_err().to_string();
    assert!(message.starts_with(&format!("cannot write {}: ", path.display())), "{message}");
    assert!(message.contains("\nhint: free some space"), "{message}");
    drop(StagedFile::create(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(names(directory.path()), ["out.bin"]);
    let absent = directory.path().join("absent/out.bin");
    let message = write(&absent, "x").unwrap_err().to_string();
    assert!(message.contains(&absent.display().to_string()), "{message}");
}

#[test]
fn files_of_the_user_are_never_temporary() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("out");
    let mine = ["out.partial", "out.tmp", ".out.tmp", ".ssa-partial-", ".ssa-partial-notes"];
    for name in mine {
        fs::write(directory.path().join(name), "mine").unwrap();
    }
    write(&path, "theirs").unwrap();
    remove_leftovers(directory.path()).unwrap();
    for name in mine {
        assert_eq!(fs::read(directory.path().join(name)).unwrap(), b"mine", "{name}");
    }
}

#[test]
fn leftovers_of_dead_writers_are_removed() {
    let directory = tempdir().unwrap();
    let dead = directory.path().join(".ssa-partial-0123456789ab");
    fs::write(&dead, "half").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("gone", directory.path().join(".ssa-partial-0123456789ac")).unwrap();
    let mut alive = StagedFile::create(&directory.path().join("out")).unwrap();
    alive.write_all(b"whole").unwrap();
    remove_leftovers(directory.path()).unwrap();
    let [left] = &names(directory.path())[..] else { panic!("one file is left") };
    assert!(is_temporary(left), "{left}");
    alive.commit().unwrap();
    assert_eq!(names(directory.path()), ["out"]);
    remove_leftovers(&directory.path().join("absent")).unwrap();
}

/// Concurrent writers of one file, with leftovers removed at the same time.
#[test]
fn writers_of_one_file_do_not_disturb_each_other() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("out");
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let (path, directory) = (&path, directory.path());
            scope.spawn(move || {
                for _ in 0..20 {
                    write(path, [writer; 4096]).unwrap();
                    let found = fs::read(path).unwrap();
                    assert!(found.len() == 4096 && found.iter().all(|byte| *byte == found[0]));
                    remove_leftovers(directory).unwrap();
                }
            });
        }
    });
    assert_eq!(names(directory.path()), ["out"]);
}

#[test]
fn a_directory_that_cannot_be_synced_is_an_error() {
    let directory = tempdir().unwrap();
    fail(&directory, Operation::SyncDirectory, ErrorKind::Other);
    let path = directory.path().join("out");
    let failed = [
        write(&path, "x").unwrap_err(),
        create_directory(&directory.path().join("new")).unwrap_err(),
        rename(&path, &directory.path().join("other")).unwrap_err(),
    ];
    for error in failed {
        assert_eq!(
            (error.operation, error.path),
            (Operation::SyncDirectory, directory.path().into())
        );
    }
}

#[test]
fn every_operation_can_fail_and_leaves_the_old_file() {
    let operations = [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename];
    for operation in operations {
        let directory = tempdir().unwrap();
        let path = directory.path().join("out");
        write(&path, "old").unwrap();
        fail(&directory, operation, ErrorKind::Other);
        let error = write(&path, "new").unwrap_err();
        assert_eq!((error.operation, error.path.as_path()), (operation, path.as_path()));
        assert_eq!(fs::read(&path).unwrap(), b"old", "{operation}");
        assert_eq!(names(directory.path()), ["out"], "{operation}");
    }
}

#[test]
fn hooks_see_every_operation_in_order() {
    let directory = tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, root) = (seen.clone(), directory.path().to_owned());
    intercept(move |operation, path| {
        if path.starts_with(&root) {
            log.lock().unwrap().push((operation, path.to_owned()));
        }
        Ok(())
    });
    let at = |name: &str| directory.path().join(name);
    create_directories(&at("a/b")).unwrap();
    write(&at("a/b/c"), "x").unwrap();
    let expected: Vec<(Operation, PathBuf)> = vec![
        (Operation::CreateDirectory, at("a")),
        (Operation::SyncDirectory, directory.path().to_owned()),
        (Operation::CreateDirectory, at("a/b")),
        (Operation::SyncDirectory, at("a")),
        (Operation::Create, at("a/b/c")),
        (Operation::Write, at("a/b/c")),
        (Operation::Sync, at("a/b/c")),
        (Operation::Rename, at("a/b/c")),
        (Operation::SyncDirectory, at("a/b")),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn removing_missing_files_succeeds() {
    let directory = tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    remove_file(&at("absent")).unwrap();
    remove_tree(&at("absent")).unwrap();
    remove_directory_if_empty(&at("absent")).unwrap();
    create_directories(&at("a/b")).unwrap();
    fs::write(at("a/mine"), "x").unwrap();
    fs::write(at("a/ours"), "x").unwrap();
    remove_directory_if_empty(&at("a")).unwrap();
    remove_files(&at("a"), &["ours", "absent"]).unwrap();
    assert_eq!(names(&at("a")), ["b", "mine"]);
    remove_tree(&at("a")).unwrap();
    assert!(names(directory.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn links_are_replaced_and_not_followed() {
    let directory = tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for target in ["one", "two"] {
        create_directory(&at(target)).unwrap();
        replace_link(target, &at("latest")).unwrap();
        assert_eq!(fs::read_link(at("latest")).unwrap(), Path::new(target));
    }
    assert_eq!(names(directory.path()), ["latest", "one", "two"]);
    remove_tree(&at("latest")).unwrap();
    assert_eq!(names(directory.path()), ["one", "two"]);
}

#[test]
fn without_links_a_file_contains_the_target() {
    let directory = tempdir().unwrap();
    fail(&directory, Operation::Link, ErrorKind::PermissionDenied);
    let link = directory.path().join("latest");
    for target in ["one", "two"] {
        replace_link(target, &link).unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), target);
    }
}

#[test]
fn checksums_are_those_of_sha256sum() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Sha256::of("abc").to_string(), abc);
    assert_eq!(hexadecimal(&Sha256::of("abc").as_bytes()[..2]), abc[..4]);
    let directory = tempdir().unwrap();
    let path = directory.path().join("abc");
    fs::write(&path, "abc").unwrap();
    assert_eq!(Sha256::of_file(&path).unwrap(), Sha256::of("abc"));
    let message = Sha256::of_file(&directory.path().join("absent")).unwrap_err().to_string();
    assert!(message.contains("absent"), "{message}");
}

#[test]
fn an_unfinished_line_does_not_merge_with_the_next() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("log.jsonl");
    let read = || read_lines(&path).unwrap();
    assert_eq!(read(), Lines::default());
    JsonLines::open(&path).unwrap().append(&1).unwrap();
    fs::write(&path, "1\n{\"ha").unwrap();
    assert_eq!(read(), Lines { text: "1\n".to_owned(), has_unfinished: true });
    let mut log = JsonLines::open(&path).unwrap();
    log.append(&2).unwrap();
    log.sync().unwrap();
    assert_eq!(read().text, "1\n{\"ha\n2\n");
    JsonLines::open_cut(&path, 2).unwrap().append(&3).unwrap();
    assert_eq!(read(), Lines { text: "1\n3\n".to_owned(), has_unfinished: false });
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_names_the_file() {
    // A device on which every write fails like on a full disk.
    let full = Path::new("/dev/full");
    let message = AppendFile::open(full).unwrap().append(b"x").unwrap_err().to_string();
    assert!(message.starts_with("cannot write /dev/full: "), "{message}");
    assert!(message.contains("\nhint: free some space"), "{message}");
}

/// A config, tokenizer or model that is a pipe or device must not stop a program for ever.
#[cfg(target_os = "linux")]
#[test]
fn pipes_are_read_and_devices_are_not() {
    let directory = tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let name = pipe.clone();
    let writer = std::thread::spawn(move || fs::write(name, "text"));
    assert_eq!(crate::read_to_string(&pipe).unwrap(), "text");
    writer.join().unwrap().unwrap();
    let error = crate::read(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(error.to_string(), "a device, not a file");
    let error = crate::open(&directory.path().join("none")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}
