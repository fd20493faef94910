use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// Short enough for tests, long enough for a busy machine.
const QUICK: Deadlines = Deadlines {
    join: Duration::from_secs(20),
    heartbeat: Duration::from_millis(50),
    silence: Duration::from_secs(20),
    grace: Duration::from_secs(5),
};

fn world(rank: usize, size: usize, port: u16) -> World {
    World { rank, size, port, token: "run".to_owned(), ..World::alone() }
}

fn facts(value: &str) -> Vec<Fact> {
    vec![Fact::new("color", value, "paint all ranks alike")]
}

/// Runs `work` on ranks that have met.
fn on_ranks<R: Send>(size: usize, work: impl Fn(&mut Ranks) -> R + Sync) -> Vec<R> {
    let leader = Rendezvous::new(world(0, size, 0)).unwrap();
    let port = leader.world().port;
    let meet = |rendezvous: Rendezvous| {
        let mut ranks = rendezvous.meet(facts("red"), QUICK, || Ok(()), |_| {}).unwrap();
        work(&mut ranks)
    };
    thread::scope(|scope| {
        let meet = &meet;
        let others: Vec<_> = (1..size)
            .map(|rank| {
                scope.spawn(move || meet(Rendezvous::new(world(rank, size, port)).unwrap()))
            })
            .collect();
        let mut results = vec![meet(leader)];
        results.extend(others.into_iter().map(|thread| thread.join().unwrap()));
        results
    })
}

/// Buffers whose numbers say the rank, the buffer and the element.
fn buffers(rank: usize, lengths: &[usize]) -> Vec<Vec<f32>> {
    let value = |buffer: usize, element: usize| (rank * 7 + buffer) as f32 + element as f32 * 1e-5;
    lengths
        .iter()
        .enumerate()
        .map(|(buffer, &length)| (0..length).map(|element| value(buffer, element)).collect())
        .collect()
}

fn slices(buffers: &[Vec<f32>]) -> Vec<&[f32]> {
    buffers.iter().map(Vec::as_slice).collect()
}

fn slices_mut(buffers: &mut [Vec<f32>]) -> Vec<&mut [f32]> {
    buffers.iter_mut().map(Vec::as_mut_slice).collect()
}

#[test]
fn collectives_move_every_piece_to_its_place() {
    let lengths = [5, 0, 3 * BLOCK + 7, 1];
    for size in [2, 3, 4] {
        let map = ShardMap::new(lengths, size);
        on_ranks(size, |ranks| {
            let own = ranks.rank();
            let mine = buffers(own, &lengths);
            for first in [0, 2] {
                let sent = slices(&mine[first..]);
                let received = ranks.all_to_all("reduce", &sent, &map, first).unwrap();
                for rank in (0..size).filter(|rank| *rank != own) {
                    let theirs = buffers(rank, &lengths);
                    for (index, piece) in received[rank].iter().enumerate() {
                        let range = map.piece(first + index, own);
                        assert_eq!(*piece, theirs[first + index][range], "{own} {rank} {index}");
                    }
                }
            }

            let mut whole = buffers(own, &lengths);
            ranks.all_gather("gather", &mut slices_mut(&mut whole), &map).unwrap();
            for (parameter, buffer) in whole.iter().enumerate() {
                for (rank, piece) in map.pieces(parameter).enumerate() {
                    assert_eq!(buffer[piece.clone()], buffers(rank, &lengths)[parameter][piece]);
                }
            }

            // What rank 0 scatters comes back when it gathers.
            let source = if own == 0 { buffers(9, &lengths) } else { vec![] };
            let mut pieces: Vec<Vec<f32>> = (0..lengths.len())
                .map(|index| vec![f32::NAN; map.piece(index, own).len()])
                .collect();
            let mut targets = slices_mut(&mut pieces);
            ranks.scatter("scatter", &slices(&source), &mut targets, &map).unwrap();
            for (index, piece) in pieces.iter().enumerate() {
                assert_eq!(*piece, buffers(9, &lengths)[index][map.piece(index, own)]);
            }
            let mut back: Vec<Vec<f32>> =
                if own == 0 { lengths.map(|length| vec![f32::NAN; length]).into() } else { vec![] };
            let mut targets = slices_mut(&mut back);
            ranks.gather("gather", &slices(&pieces), &mut targets, &map).unwrap();
            assert_eq!(back, source);

            let counts: Vec<usize> = (0..size).map(|rank| rank * 3).collect();
            let numbers = vec![own as f64; own * 3];
            let all = ranks.all_gather_numbers("numbers", &numbers, &counts).unwrap();
            assert!(
                all.iter().enumerate().all(|(rank, list)| *list == vec![rank as f64; rank * 3])
            );

            let mut bytes = vec![own as u8; 3 + own];
            ranks.broadcast_bytes("tell", &mut bytes).unwrap();
            assert_eq!(bytes, [0; 3]);
            let mut same = buffers(own, &lengths);
            ranks.broadcast("weights", &mut slices_mut(&mut same)).unwrap();
            assert_eq!(same, buffers(0, &lengths));
            ranks.leave().unwrap();
        });
    }
}

#[test]
fn a_process_without_others_needs_no_connection() {
    let mut ranks = Ranks::alone();
    let (map, mut buffer) = (ShardMap::new([3], 1), vec![1.0, 2.0, 3.0]);
    ranks.all_gather("gather", &mut [&mut buffer], &map).unwrap();
    assert_eq!(buffer, [1.0, 2.0, 3.0]);
    assert_eq!(ranks.all_gather_numbers("numbers", &[4.0], &[1]).unwrap(), [[4.0]]);
    ranks.agree(&Fact::new("color", "red", "")).unwrap();
    ranks.alarm().raise("nobody hears this", 1);
    ranks.leave().unwrap();
}

#[test]
fn a_difference_is_the_same_error_on_every_rank() {
    let errors = on_ranks(3, |ranks| {
        ranks.agree(&Fact::new("shape", "round", "")).unwrap();
        let color = if ranks.rank() == 2 { "blue" } else { "red" };
        ranks.agree(&Fact::new("color", color, "paint all ranks alike")).unwrap_err().to_string()
    });
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    assert!(errors[0].starts_with("the color differs: rank 0 has red, rank 2 on "), "{errors:?}");
    assert!(errors[0].ends_with(" has blue\nhint: paint all ranks alike"), "{errors:?}");
}

#[test]
fn the_roll_call_compares_facts() {
    let leader = Rendezvous::new(world(0, 2, 0)).unwrap();
    let other = Rendezvous::new(world(1, 2, leader.world().port)).unwrap();
    let meet = |rendezvous: Rendezvous, color: &str| {
        rendezvous.meet(facts(color), QUICK, || Ok(()), |_| {}).err().unwrap().to_string()
    };
    let errors = thread::scope(|scope| {
        let other = scope.spawn(|| meet(other, "blue"));
        [meet(leader, "red"), other.join().unwrap()]
    });
    assert_eq!(errors[0], errors[1]);
    assert!(errors[0].contains("the color differs: rank 0 has red, rank 1 on "), "{errors:?}");
}

#[test]
fn ranks_that_do_not_come_are_named() {
    let deadlines = Deadlines { join: Duration::from_secs(1), ..QUICK };
    let leader = Rendezvous::new(world(0, 4, 0)).unwrap();
    let other = Rendezvous::new(world(2, 4, leader.world().port)).unwrap();
    let meet = |rendezvous: Rendezvous| {
        rendezvous.meet(vec![], deadlines, || Ok(()), |_| {}).err().unwrap().to_string()
    };
    let [ours, theirs] = thread::scope(|scope| {
        let other = scope.spawn(|| meet(other));
        [meet(leader), other.join().unwrap()]
    });
    assert!(ours.starts_with("ranks 1, 3 are missing after 1 s; present: rank 0 on "), "{ours}");
    assert!(ours.contains(", rank 2 on "), "{ours}");
    assert!(theirs.contains("ranks 1, 3 are missing"), "{theirs}");
}

#[test]
fn a_rank_without_a_leader_says_where_it_looked() {
    let deadlines = Deadlines { join: Duration::from_millis(200), ..QUICK };
    // A port that was free a moment ago.
    let port = Rendezvous::new(world(0, 2, 0)).unwrap().world().port;
    let alone = Rendezvous::new(world(1, 2, port)).unwrap();
    let error = alone.meet(vec![], deadlines, || Ok(()), |_| {}).err().unwrap().to_string();
    assert!(error.contains(&format!("rank 0 at 127.0.0.1:{port} within 0 s")), "{error}");
}

#[test]
fn processes_of_other_runs_are_turned_away() {
    let leader = Rendezvous::new(world(0, 2, 0)).unwrap();
    let port = leader.world().port;
    let stranger = World { token: "another".to_owned(), ..world(1, 2, port) };
    let meet =
        |world: World| Rendezvous::new(world).unwrap().meet(vec![], QUICK, || Ok(()), |_| {});
    thread::scope(|scope| {
        let leading = scope.spawn(|| leader.meet(vec![], QUICK, || Ok(()), |_| {}).is_ok());
        let error = meet(stranger).err().unwrap().to_string();
        assert!(error.contains("another run listens on"), "{error}");
        assert!(meet(world(1, 2, port)).is_ok());
        assert!(leading.join().unwrap());
    });
}

#[test]
fn a_taken_port_and_a_failed_child_are_reported() {
    let leader = Rendezvous::new(world(0, 2, 0)).unwrap();
    let error = Rendezvous::new(leader.world().clone()).err().unwrap().to_string();
    assert!(error.contains("rank 0 cannot listen on 127.0.0.1:"), "{error}");
    let status = "exit code 3".to_owned();
    let ended = RanksError::EndedEarly { rank: 1, status, code: Some(3) };
    let check = || Err(ended.clone());
    assert_eq!(leader.meet(vec![], QUICK, check, |_| {}).err(), Some(ended.clone()));
}

#[test]
fn the_failure_of_one_rank_ends_all() {
    for failing in [0, 2] {
        let errors = on_ranks(3, |ranks| {
            ranks.begin_step(7);
            if ranks.rank() == failing {
                ranks.alarm().raise("the disk is full\nhint: make room", 3);
                return None;
            }
            ranks.broadcast_bytes("wait", &mut vec![0]).err()
        });
        for (rank, error) in errors.into_iter().enumerate().filter(|(rank, _)| *rank != failing) {
            let Some(RanksError::Ended(notice)) = error else { panic!("{rank}: {error:?}") };
            assert_eq!((notice.rank, notice.place.step), (failing, 7));
            let text = notice.to_string();
            assert!(text.contains("failed in step 7 (compute the gradient): the disk"), "{text}");
            assert!(matches!(notice.cause, Cause::Failed { code: 3, .. }));
        }
    }
}

#[test]
fn a_silent_rank_is_lost() {
    let deadlines = Deadlines {
        heartbeat: Duration::from_secs(60),
        silence: Duration::from_millis(500),
        ..QUICK
    };
    let leader = Rendezvous::new(world(0, 2, 0)).unwrap();
    let other = Rendezvous::new(world(1, 2, leader.world().port)).unwrap();
    let start = Instant::now();
    let meet = |rendezvous: Rendezvous| {
        let mut ranks = rendezvous.meet(vec![], deadlines, || Ok(()), |_| {}).unwrap();
        if ranks.rank() == 1 {
            thread::sleep(Duration::from_secs(1));
        }
        ranks.broadcast("wait", &mut [&mut [0.0]]).map(drop)
    };
    let results = thread::scope(|scope| {
        let other = scope.spawn(|| meet(other));
        [meet(leader), other.join().unwrap()]
    });
    // Both fall silent after their first heartbeat.
    let text = results[1].clone().unwrap_err().to_string();
    assert!(text.contains("was lost before the first step"), "{text}");
    assert!(text.contains("it sent no heartbeat for 0.5 s"), "{text}");
    assert!(start.elapsed() < QUICK.join);
}

#[test]
fn different_operations_are_not_mixed_up() {
    let errors = on_ranks(2, |ranks| {
        let name = if ranks.rank() == 0 { "one" } else { "other" };
        ranks.broadcast("wait", &mut [&mut [0.0]]).unwrap();
        ranks.broadcast(name, &mut [&mut [0.0]]).unwrap_err().to_string()
    });
    let error = errors.iter().find(|error| error.contains("is in operation")).unwrap();
    assert!(error.contains("2 `one` with ") && error.contains("2 `other` with "), "{error}");
}
