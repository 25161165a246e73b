//! The shipped agreement, explored: every order in which messages arrive, members choose, believe, pause and restart,
//! within the bounds of each row, each state once; and from each state, whoever crashes, the way on.
//!
//! What depends on time is left to the explorer (`machine::by_hand`), so no timing is left out. After Lamport's
//! TLA+ and Holzmann's SPIN, with the program itself in the place of a model.

mod fact;
mod local;
mod past;
mod recovery;
mod rows;
mod store;
mod world;

use rows::{ROWS, Row};
use std::string::String;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{eprintln, format};
use world::World;

/// Searches the rows, on two threads, and fails with the first broken promise or with rows that took too long.
fn search(rows: &[Row], limit: Duration) {
    let (next, is_broken) = (AtomicUsize::new(0), AtomicBool::new(false));
    let wrong: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let work = || {
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begin = Instant::now();
            let found = World::new(row).run(|| begin.elapsed() > limit || is_broken.load(Ordering::Relaxed));
            eprintln!(
                "{:48} {:>10} states {:>6} locals {:>4} facts {:>8} recoveries {:>6.1} s",
                row.name,
                found.states,
                found.locals,
                found.facts,
                found.recoveries,
                begin.elapsed().as_secs_f64()
            );
            is_broken.fetch_or(found.violation.is_some(), Ordering::Relaxed);
            let what = match found.violation {
                Some(violation) => violation,
                None if found.is_whole || is_broken.load(Ordering::Relaxed) => continue,
                None => format!("row {:?} was cut short after {} states", row.name, found.states),
            };
            wrong.lock().expect("nobody panics with it").push(what);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let wrong = wrong.into_inner().expect("nobody panics with it");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The short rows; with `cargo xtask explore` all of them, minutes each.
#[test]
fn every_order_of_events_keeps_the_promises() {
    let wanted = std::env::var("PLESIO_EXPLORE").ok();
    let is_wanted = |row: &&Row| match &wanted {
        None => row.is_short,
        Some(text) => row.name.contains(text.as_str()),
    };
    let rows: Vec<Row> = ROWS.iter().filter(is_wanted).cloned().collect();
    assert!(!rows.is_empty(), "no row is called {wanted:?}");
    let seconds = std::env::var("PLESIO_EXPLORE_SECONDS").ok().and_then(|text| text.parse().ok());
    search(&rows, Duration::from_secs(seconds.unwrap_or(900)));
}

/// What is past is left out of states; this finds out, where searching everything is still cheap, that nothing is lost.
#[test]
fn forgetting_what_is_past_loses_no_local_state_and_no_recovery() {
    let names =
        ["one index, the lowest restarts", "a version, then a view", "join, 2 to 3", "two indices, b2 of"];
    for name in names {
        let row = ROWS.iter().find(|row| row.name.starts_with(name)).expect("a row of that name");
        let (short, long) = (World::new(row).run(|| false), World::with_past(row).run(|| false));
        assert_eq!((short.violation, long.violation), (None, None));
        assert!(short.states < long.states, "{name}: {} of {} states", short.states, long.states);
        let left = |found: usize, of: usize, what: &str| assert_eq!(found, of, "{name}: {what}");
        left(short.locals, long.locals, "local states");
        left(short.facts, long.facts, "facts");
        left(short.recoveries, long.recoveries, "recoveries");
    }
}
