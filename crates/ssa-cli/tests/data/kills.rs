//! A preparation that is killed at any instant.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::common::command;
use crate::place::{Place, lines, zstd};

/// Documents of the input: the program takes about a quarter of a second for them.
const DOCUMENTS: usize = 4000;

fn prepare(place: &Place, output: &str) -> Vec<String> {
    let arguments = format!(
        "data prepare in --tokenizer tokenizer --eos-token <|endoftext|> --shard-tokens 20000 --output {output}"
    );
    assert!(place.at("in").is_dir());
    arguments.split_whitespace().map(str::to_owned).collect()
}

/// Starts the program, kills it (SIGKILL) after so long, and says whether it had ended by itself.
fn start_and_kill(place: &Place, arguments: &[String], after: Duration) -> bool {
    let mut command = command(place.path());
    let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    sleep(after);
    child.kill().unwrap();
    child.wait().unwrap().success()
}

#[test]
fn a_preparation_killed_at_any_instant_ends_like_a_straight_one() {
    let place = Place::new();
    let text = lines(DOCUMENTS);
    let (first, second) = text.split_at(text.match_indices('\n').nth(DOCUMENTS / 3).unwrap().0 + 1);
    place.write("in/a.jsonl", first);
    place.write("in/b.jsonl.zst", zstd(second));
    place.ssa("data train-tokenizer in/a.jsonl --vocab-size 300 --output tokenizer").succeeds();
    crate::common::ssa(place.path(), prepare(&place, "straight")).succeeds();
    let straight = place.files("straight");
    assert!(straight.len() > 30, "{} files", straight.len());

    // The instants are spread evenly over the time a run may take: low bits of the golden ratio's multiples.
    let arguments = prepare(&place, "killed");
    let (mut kills, mut shards) = (0, 0);
    for attempt in 1_u32..=60 {
        let after = Duration::from_micros(u64::from(attempt.wrapping_mul(2_654_435_769) >> 15));
        if start_and_kill(&place, &arguments, after) {
            break;
        }
        kills += 1;
        // What has its name is whole, and stays.
        if place.at("killed").is_dir() {
            let found = place.files("killed");
            let whole: Vec<_> = found.iter().filter(|(name, _)| name.ends_with(".idx")).collect();
            assert!(whole.len() >= shards, "a whole shard is gone");
            shards = whole.len();
            for (name, bytes) in whole {
                assert!(straight[name] == *bytes, "{name} differs");
            }
        }
    }
    let finished = crate::common::ssa(place.path(), &arguments).succeeds();
    assert!(kills >= 5, "{kills} kills; then:\n{}", finished.stdout);
    let mut killed = place.files("killed");
    // Best effort of a program that is killed: what it left unfinished keeps a name that nobody reads.
    killed.retain(|name, _| !name.ends_with(".partial"));
    assert_eq!(killed.keys().collect::<Vec<_>>(), straight.keys().collect::<Vec<_>>());
    assert!(killed == straight);
    place.ssa("data inspect killed --rows 0").succeeds();
}
