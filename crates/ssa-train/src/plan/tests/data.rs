use std::collections::HashSet;
use std::fs;
use std::path::Path;

use ssa_data::{
    ByteTokenizer, Corpus, Loader, Manifest, PackedRows, Packing, ShardFiles, ShardSum,
    ShardWriter, TokenType, Tokenizer,
};
use tempfile::{TempDir, tempdir};

use super::*;

/// Writes a corpus of byte tokens: `count` documents of one letter, 20 per shard.
fn corpus(directory: &Path, letter: u8, count: usize) {
    fs::create_dir_all(directory).unwrap();
    for (shard, start) in (0..count).step_by(20).enumerate() {
        let mut writer =
            ShardWriter::create(&directory.join(format!("{shard:05}")), TokenType::U16).unwrap();
        for document in start..count.min(start + 20) {
            let mut ids = vec![u32::from(letter); 5 + 7 * document % 60];
            ids.push(ByteTokenizer::EOS);
            writer.push(&ids).unwrap();
        }
        writer.finish().unwrap();
    }
}

/// Writes the manifest of a corpus.
fn describe(directory: &Path) {
    let mut shards = Vec::new();
    for shard in Corpus::open(directory).unwrap().shards() {
        let stem = shard.path().with_extension("");
        let mut writer = ShardWriter::create(&stem, TokenType::U16).unwrap();
        (0..shard.documents())
            .for_each(|document| writer.push(&shard.document(document).unwrap()).unwrap());
        let ShardFiles { bin, idx, bytes } = writer.finish().unwrap();
        let (documents, tokens) = (shard.documents() as u64, shard.tokens());
        let name = stem.file_name().unwrap().to_str().unwrap().to_owned();
        shards.push(ShardSum {
            name,
            documents,
            tokens,
            text_bytes: tokens - documents,
            bin,
            idx,
            bytes,
        });
    }
    Manifest::new(&Tokenizer::Bytes, None, shards, vec![]).write(directory).unwrap();
}

/// Two corpora, `a` and `b`.
fn corpora() -> TempDir {
    let directory = tempdir().unwrap();
    corpus(&directory.path().join("a"), b'a', 50);
    corpus(&directory.path().join("b"), b'b', 30);
    directory
}

fn plan_of(data: &str) -> Result<TrainPlan, ConfigError> {
    let text = format!("[data]\nsequence_length = 32\n{data}");
    TrainPlan::new(TrainConfig::parse(&text, "run.toml", &[]).unwrap())
}

/// The plan of corpora in `directory`, whose tokens are bytes.
fn plan(directory: &TempDir, data: &str) -> TrainPlan {
    let data = data.replace("DIR", &directory.path().display().to_string());
    plan_of(&format!("tokenizer = \"bytes\"\n{data}")).unwrap()
}

const BOTH: &str = "corpora = [{ path = \"DIR/a\", weight = 3 }, \"DIR/b\"]";

fn letters(rows: &PackedRows) -> HashSet<u32> {
    let rows = rows.iter().map(|row| row.unwrap());
    let mut letters: HashSet<u32> = rows.flat_map(|row| row.ids().to_vec()).collect();
    letters.remove(&ByteTokenizer::EOS);
    letters
}

#[test]
fn corpora_are_mixed_by_weight() {
    let directory = corpora();
    let data = plan(&directory, BOTH).open_data().unwrap();
    assert_eq!(data.train.shares().collect::<Vec<_>>(), [0.75, 0.25]);
    assert!(data.names[0].ends_with("/a") && data.names[1].ends_with("/b"));
    let loader = Loader::new(data.train, 8, 0).unwrap();
    for index in 0..10 {
        let batch = loader.batch(index).unwrap();
        let of_b = batch.ids.chunks(32).filter(|row| row.contains(&u32::from(b'b'))).count();
        assert_eq!(of_b, 2, "a quarter of every batch");
    }
}

#[test]
fn documents_are_held_out_of_every_corpus() {
    let directory = corpora();
    let plan = plan(&directory, &format!("held_out_fraction = 0.3\n{BOTH}"));
    let data = plan.open_data().unwrap();
    let tokens = |rows: &mut dyn Iterator<Item = &PackedRows>| -> u64 {
        rows.map(|rows| rows.valid_tokens() + rows.dropped_tokens()).sum()
    };
    let train = tokens(&mut data.train.corpora());
    let held_out = tokens(&mut data.held_out.parts.iter().map(|part| &part.rows));
    let all: usize = (0..50).chain(0..30).map(|document| 6 + 7 * document % 60).sum();
    assert_eq!(train + held_out, all as u64);
    for (part, letter) in data.held_out.parts.iter().zip(*b"ab") {
        assert_eq!(letters(&part.rows), HashSet::from([u32::from(letter)]));
        assert_eq!(part.bytes_per_target, 1.0);
    }
    assert_eq!(data.held_out.baseline_bits_per_byte, None);
    let again = plan.config().dataset_options().open_held_out(plan.tokenizer()).unwrap();
    assert_eq!(again.parts[1].rows.valid_tokens(), data.held_out.parts[1].rows.valid_tokens());
}

#[test]
fn other_text_can_be_evaluated_on() {
    let directory = corpora();
    let all_of_a: usize = (0..50).map(|document| 6 + 7 * document % 60).sum();
    let one = "corpora = [\"DIR/a\"]";

    let of_b =
        plan(&directory, &format!("valid_corpora = [\"DIR/b\"]\n{one}")).open_data().unwrap();
    assert_eq!(letters(&of_b.held_out.parts[0].rows), HashSet::from([u32::from(b'b')]));
    let train = of_b.train.corpora().next().unwrap();
    assert_eq!(
        train.valid_tokens() + train.dropped_tokens(),
        all_of_a as u64,
        "nothing is held out"
    );

    let file = directory.path().join("text.txt");
    fs::write(&file, "xyz").unwrap();
    let of_text =
        plan(&directory, &format!("valid_paths = [\"DIR/text.txt\"]\n{one}")).open_data().unwrap();
    assert_eq!(letters(&of_text.held_out.parts[0].rows), HashSet::from([120, 121, 122]));
    assert_eq!(of_text.held_out.baseline_bits_per_byte, None);
}

#[test]
fn only_as_much_is_evaluated_as_asked_for() {
    let directory = corpora();
    let data = format!("held_out_fraction = 0.5\n{BOTH}\n[evaluation]\ntokens = 200");
    let parts = plan(&directory, &data).open_data().unwrap().held_out.parts;
    // 150 and 50 tokens in rows of 32.
    assert_eq!(parts.iter().map(|part| part.rows.len()).collect::<Vec<_>>(), [5, 2]);
}

#[test]
fn packing_is_as_configured_for_training_and_concat_for_evaluation() {
    let directory = corpora();
    for &packing in Packing::ALL {
        let data =
            plan(&directory, &format!("packing = \"{packing}\"\n{BOTH}")).open_data().unwrap();
        assert!(data.train.corpora().all(|rows| rows.packing() == packing));
        assert!(data.held_out.parts.iter().all(|part| part.rows.packing() == Packing::Concat));
    }
}

#[test]
fn text_is_data_too() {
    let plan = plan_of("").unwrap();
    let data = plan.open_data().unwrap();
    assert_eq!(data.names, ["built-in text"]);
    assert_eq!(data.held_out.parts[0].bytes_per_target, 1.0);
    assert!(data.held_out.baseline_bits_per_byte.unwrap() < 8.0);
}

#[test]
fn the_order_on_disk_does_not_count() {
    let [first, second] = [corpora(), tempdir().unwrap()];
    // The same files, created in a different order.
    fs::create_dir(second.path().join("a")).unwrap();
    let mut files: Vec<_> = fs::read_dir(first.path().join("a"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    files.sort();
    for file in files.iter().rev() {
        fs::copy(first.path().join("a").join(file), second.path().join("a").join(file)).unwrap();
    }
    let [ours, theirs] = [&first, &second].map(|directory| {
        let data = plan(directory, "corpora = [\"DIR/a\"]").open_data().unwrap();
        Loader::new(data.train, 4, 3).unwrap()
    });
    for index in 0..20 {
        assert_eq!(ours.batch(index).unwrap(), theirs.batch(index).unwrap());
    }
}

fn open_error(directory: &TempDir, data: &str) -> String {
    let error = plan(directory, data).open_data().unwrap_err();
    assert!(matches!(error, TrainError::Data(_)), "{error}");
    error.to_string()
}

#[test]
fn damaged_shards_are_named() {
    let one = "corpora = [\"DIR/a\"]";
    let cut = |file: &str| {
        let directory = corpora();
        let path = directory.path().join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        open_error(&directory, one)
    };
    let message = cut("a/00001.bin");
    assert!(
        message.contains("a/00001.bin: it has") && message.contains("ssa data prepare"),
        "{message}"
    );
    let message = cut("a/00001.idx");
    assert!(message.contains("a/00001.idx: it has"), "{message}");

    let directory = corpora();
    let (one_bin, other_bin) =
        (directory.path().join("a/00000.bin"), directory.path().join("a/00002.bin"));
    let bytes = fs::read(&one_bin).unwrap();
    fs::rename(&other_bin, &one_bin).unwrap();
    fs::write(&other_bin, bytes).unwrap();
    let message = open_error(&directory, one);
    assert!(
        message.contains("a/00000.bin: it has") && message.contains("a/00000.idx"),
        "swapped: {message}"
    );

    let directory = corpora();
    fs::remove_file(directory.path().join("a/00001.bin")).unwrap();
    let message = open_error(&directory, one);
    assert!(message.contains("a/00001.bin: no such file"), "{message}");
    fs::create_dir(directory.path().join("empty")).unwrap();
    let message = open_error(&directory, "corpora = [\"DIR/empty\"]");
    assert!(message.contains("empty: no shard"), "{message}");
}

#[test]
fn corpora_are_compared_with_their_manifest() {
    let directory = corpora();
    let path = directory.path().join("a");
    describe(&path);
    let one = format!("corpora = [\"{}\"]", path.display());
    let open = |data: &str| {
        plan_of(data)
            .map_err(|error| error.to_string())
            .and_then(|plan| plan.open_data().map_err(|error| error.to_string()))
    };
    let failure = |data: &str| open(data).unwrap_err();
    open(&one).unwrap();

    let bin = fs::read(path.join("00001.bin")).unwrap();
    let mut changed = bin.clone();
    changed[0] ^= 1;
    fs::write(path.join("00001.bin"), changed).unwrap();
    open(&one).unwrap();
    let message = failure(&format!("verify_checksums = true\n{one}"));
    assert!(
        message.contains("a/00001.bin: its checksum is not the one in manifest.json"),
        "{message}"
    );
    fs::write(path.join("00001.bin"), bin).unwrap();

    for extension in ["bin", "idx"] {
        let [one, other] = ["00000", "00001"].map(|name| path.join(name).with_extension(extension));
        let bytes = fs::read(&one).unwrap();
        fs::rename(&other, &one).unwrap();
        fs::write(&other, bytes).unwrap();
    }
    let message = failure(&one);
    assert!(
        message.contains("a/00000.") && message.contains("manifest.json"),
        "swapped pairs: {message}"
    );
    fs::remove_file(path.join("00002.idx")).unwrap();
    fs::remove_file(path.join("00002.bin")).unwrap();
    describe(&path);
    open(&one).unwrap();

    let manifest = path.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    let message = failure(&one);
    assert!(message.contains("a/manifest.json: not a manifest of a corpus"), "{message}");
    fs::write(&manifest, text.replace("\"vocab_size\": 257", "\"vocab_size\": 300")).unwrap();
    let message = failure(&one);
    assert!(
        message.contains("a/manifest.json: the corpus was made with a tokenizer of 300 tokens"),
        "{message}"
    );
}

#[test]
fn a_corpus_without_a_tokenizer_needs_one_named() {
    let directory = corpora();
    let path = directory.path().join("a");
    let message = plan_of(&format!("corpora = [\"{}\"]", path.display())).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("{}: the corpus has no tokenizer", path.display())),
        "{message}"
    );
    assert!(message.contains("data.tokenizer"), "{message}");
}

#[test]
fn text_and_corpora_are_not_mixed() {
    let message = plan_of("tokenizer = \"bytes\"\npaths = [\"x\"]\ncorpora = [\"y\"]")
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("`data.corpora` is given together with data.paths, expected only one"),
        "{message}"
    );
    let message =
        plan_of("valid_paths = [\"x\"]\nvalid_corpora = [\"y\"]").unwrap_err().to_string();
    assert!(message.starts_with("`data.valid_corpora` is given together"), "{message}");
}

#[test]
fn too_few_documents_or_tokens_are_named() {
    let directory = tempdir().unwrap();
    corpus(&directory.path().join("a"), b'a', 1);
    let message = open_error(&directory, "corpora = [\"DIR/a\"]");
    assert!(
        message.contains("cannot hold out a document") && message.contains("data.valid_corpora"),
        "{message}"
    );
    let message = open_error(&directory, "corpora = [\"DIR/a\"]\nvalid_corpora = [\"DIR/a\"]");
    assert!(message.contains("one row needs 32"), "{message}");
}
