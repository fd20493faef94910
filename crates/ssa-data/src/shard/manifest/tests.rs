use ssa_text::ByteTokenizer;

use super::*;

use crate::shard::{ShardFiles, ShardWriter, TokenType};

/// Three shards of byte tokens with their manifest. The second and third are equally large.
fn corpus() -> (tempfile::TempDir, Manifest) {
    let directory = tempfile::tempdir().unwrap();
    let shard = |(name, texts): (&str, &[&str])| {
        let mut writer = ShardWriter::create(&directory.path().join(name), TokenType::U16).unwrap();
        for text in texts {
            let mut ids = ByteTokenizer.encode(text.as_bytes());
            ids.push(ByteTokenizer::EOS);
            writer.push(&ids).unwrap();
        }
        let (documents, tokens) = (writer.documents() as u64, writer.tokens());
        let ShardFiles { bin, idx, bytes } = writer.finish().unwrap();
        ShardSum {
            name: name.to_owned(),
            documents,
            tokens,
            text_bytes: tokens - documents,
            bin,
            idx,
            bytes,
        }
    };
    let shards: [(&str, &[&str]); 3] =
        [("00000", &["one", "two"]), ("00001", &["aa", "b"]), ("00002", &["cc", "d"])];
    let sources = vec![];
    let manifest = Manifest::new(&Tokenizer::Bytes, None, shards.map(shard).to_vec(), sources);
    manifest.write(directory.path()).unwrap();
    (directory, manifest)
}

fn swap(directory: &Path, one: &str, other: &str) {
    let [one, other] = [one, other].map(|name| directory.join(name));
    let bytes = fs::read(&one).unwrap();
    fs::rename(&other, &one).unwrap();
    fs::write(&other, bytes).unwrap();
}

#[test]
fn a_manifest_is_read_as_written_and_fits_its_files() {
    let (directory, manifest) = corpus();
    assert_eq!(Manifest::read(directory.path()).unwrap(), Some(manifest.clone()));
    manifest.check(directory.path(), ManifestCheck::Everything).unwrap();
    assert!(matches!(manifest.load_tokenizer(directory.path()).unwrap(), Tokenizer::Bytes));
    assert_eq!(Manifest::read(Path::new("/no/such")).unwrap(), None);
    assert_eq!(
        Manifest::read(&directory.path().join("00000.bin")).unwrap(),
        None,
        "one pair has none"
    );
}

#[test]
fn damage_names_the_file() {
    let check = |break_it: &dyn Fn(&Path), check: ManifestCheck, expected: &str| {
        let (directory, manifest) = corpus();
        break_it(directory.path());
        let message = manifest.check(directory.path(), check).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    use ManifestCheck::{Everything, Indices};
    check(&|at| fs::remove_file(at.join("00001.bin")).unwrap(), Indices, "00001.bin: no such file");
    check(&|at| fs::remove_file(at.join("00001.idx")).unwrap(), Indices, "00001.idx: no such file");
    let cut = |at: &Path| fs::write(at.join("00000.bin"), [0; 6]).unwrap();
    check(&cut, Indices, "00000.bin: it has 6 bytes where manifest.json has 16");
    // Swapped pairs, of different sizes or of the same size.
    let pairs = |at: &Path, other: &str| {
        swap(at, "00001.idx", &format!("{other}.idx"));
        swap(at, "00001.bin", &format!("{other}.bin"));
    };
    check(
        &|at| pairs(at, "00000"),
        Indices,
        "00000.idx: its checksum is not the one in manifest.json",
    );
    check(
        &|at| pairs(at, "00002"),
        Everything,
        "00001.bin: its checksum is not the one in manifest.json",
    );
    let flip = |at: &Path| fs::write(at.join("00002.bin"), [7; 10]).unwrap();
    check(&flip, Everything, "00002.bin: its checksum");
    let add = |at: &Path| {
        for extension in ["bin", "idx"] {
            fs::copy(at.join(format!("00000.{extension}")), at.join(format!("00009.{extension}")))
                .unwrap();
        }
    };
    check(&add, Indices, "manifest.json: it does not list the shard");
}

#[test]
fn invalid_manifests_are_named() {
    let (directory, manifest) = corpus();
    let message = |text: &str| {
        fs::write(directory.path().join(MANIFEST), text).unwrap();
        Manifest::read(directory.path()).unwrap_err().to_string()
    };
    for text in ["", "[]", "{\"version\": 1}", "{\"version\": 1, \"shards\": 3}"] {
        let message = message(text);
        assert!(message.contains("manifest.json: not a manifest of a corpus"), "{message}");
    }
    let newer = serde_json::to_string(&Manifest { version: 2, ..manifest }).unwrap();
    let message = message(&newer);
    assert!(message.contains("it has version 2, but this program reads 1"), "{message}");
}

#[test]
fn another_tokenizer_is_named() {
    let (directory, mut manifest) = corpus();
    manifest.tokenizer.vocab_size = 300;
    let message = manifest.load_tokenizer(directory.path()).unwrap_err().to_string();
    assert!(
        message.contains("manifest.json: the corpus was made with a tokenizer of 300 tokens"),
        "{message}"
    );
    manifest.tokenizer.sha256 = Some("0".to_owned());
    let message = manifest.load_tokenizer(directory.path()).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json: no such file"), "{message}");
}

#[test]
fn the_count_of_parts_is_not_trusted() {
    let (directory, mut manifest) = corpus();
    let settings = |index, count| PrepareSettings {
        part: Part { index, count },
        format: Format::Auto,
        text_field: "text".to_owned(),
        conversations_field: None,
        shard_tokens: 1,
    };
    manifest.settings = Some(settings(1, 1 << 40));
    let name = directory.path().join(MANIFEST);
    fs::write(&name, serde_json::to_string(&manifest).unwrap()).unwrap();
    let message = Manifest::read(directory.path()).unwrap_err().to_string();
    assert!(message.contains("manifest-002-of-1099511627776.json: missing"), "{message}");
    manifest.settings = Some(settings(3, 2));
    fs::write(&name, serde_json::to_string(&manifest).unwrap()).unwrap();
    let message = Manifest::read(directory.path()).unwrap_err().to_string();
    assert!(
        message.contains("manifest.json: it is of part 3/2, which does not exist"),
        "{message}"
    );
}
