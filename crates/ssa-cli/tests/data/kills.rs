//! A preparation killed at random times.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::common::command;
use crate::place::{Place, lines, zstd};

/// Documents of the input, for a run time of about a quarter of a second.
const DOCUMENTS: usize = 4000;

fn prepare(output: &str) -> Vec<String> {
    let arguments =
        format!("data prepare in --tokenizer tokenizer --shard-tokens 20000 --output {output}");
    arguments.split_whitespace().map(str::to_owned).collect()
}

/// Starts the program, kills it (SIGKILL) after `after`, and returns whether it had ended by
/// itself.
fn start_and_kill(place: &Place, arguments: &[String], after: Duration) -> bool {
    let mut command = command(place.path());
    let mut child =
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
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
    crate::common::ssa(place.path(), prepare("straight")).succeeds();
    let straight = place.files("straight");
    assert!(straight.len() > 30, "{} files", straight.len());

    // Multiples of the golden ratio spread the kill times evenly, over 20 ms at first and 140 ms at
    // the end.
    let arguments = prepare("killed");
    let (mut kills, mut shards) = (0, 0);
    for attempt in 1_u32..=60 {
        let fraction = f64::from(attempt) * 0.618_033_988_749_895 % 1.0;
        let after = Duration::from_millis(20 * (1 + u64::from(attempt) / 10)).mul_f64(fraction);
        if start_and_kill(&place, &arguments, after) {
            break;
        }
        kills += 1;
        // Files with a final name are complete and stay.
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
    println!("{kills} kills, {shards} whole shards after the last");
    let killed = place.files("killed");
    assert_eq!(killed.keys().collect::<Vec<_>>(), straight.keys().collect::<Vec<_>>());
    assert!(killed == straight);
    place.ssa("data inspect killed --rows 0").succeeds();
}
