//! A bad path between the ends: what arrives is what was sent, and the document says what the path did.

use crate::common::{SHORT, document, output, text};

const BAD: &[&str] = &[
    "--loss",
    "2%",
    "--delay",
    "2ms",
    "--jitter",
    "1ms",
    "--reorder",
    "2%",
    "--dup",
    "2%",
    "--corrupt",
    "1%",
    "--seed",
    "3",
];

#[test]
fn what_comes_through_a_bad_path_is_what_was_sent() {
    let line = ["udp", "--vs", "udp-raw", "--size", "64k", "--protection", "both", "--working-set", "hot"];
    let runs = ["--repeats", "1", "--seconds", "0.4"];
    for shape in [&[][..], &["--both"], &["--flows", "3", "--incast"]] {
        let document = document(&[&line[..], &runs, shape, BAD].concat());
        assert_eq!(document["config"]["impair"]["loss_ratio"], 0.02);
        let rows = document["results"].as_array().expect("rows");
        assert_eq!(rows.len(), 2, "one chunk size, two protections");
        for row in rows {
            assert_eq!((&row["wrong_bytes"], &row["chunk_bytes"]), (&0.into(), &1408.into()), "{row}");
            assert!(row["received_bytes"].as_u64() > Some(0), "{row}");
            assert!(row["retransmit_ratio"].as_f64() > Some(0.0), "what is lost goes again: {row}");
            for (field, some) in [("taken", true), ("lost", true), ("copied", true), ("damaged", true)] {
                assert_eq!(row["path"][field].as_u64() > Some(0), some, "{field}: {row}");
            }
            assert_eq!(row["path"]["strangers"], 0, "somebody did not go through the relay: {row}");
        }
        for row in document["baseline"].as_array().expect("rows") {
            assert!(row["path"]["lost"].as_u64() > Some(0), "the rival has the same path: {row}");
        }
    }
}

#[test]
fn a_round_trip_takes_as_long_as_the_path_does() {
    let line = ["pingpong", "--delay", "2ms", "--vs", "udp-raw", "--protection", "both"];
    let document = document(&[&line, SHORT].concat());
    let rows = document["results"].as_array().expect("rows").iter();
    for row in rows.chain(document["baseline"].as_array().expect("rows")) {
        assert!(row["min_ns"].as_f64() >= Some(4e6), "both ways are 2 ms long: {row}");
        assert_eq!(row["wrong_bytes"], 0);
    }
}

#[test]
fn a_path_slower_than_the_run_is_measured_all_the_same() {
    let line = ["udp", "--rate", "1Mbit", "--size", "1M", "--chunk", "1408"];
    for shape in [&[][..], &["--both"], &["--flows", "2", "--incast"]] {
        let document = document(&[&line[..], SHORT, shape].concat());
        let row = &document["results"][0];
        let goodput = row["goodput_bps"].as_f64().expect("a figure");
        // The first 64 KiB go as fast as they come, in each direction.
        assert!((1e5..6e6).contains(&goodput), "a megabit: {row}");
        assert_eq!(row["wrong_bytes"], 0, "{row}");
        assert!(document["notes"].to_string().contains("before its last messages were whole"), "{document}");
    }
}

#[test]
fn a_path_longer_than_the_run_is_measured_all_the_same() {
    for command in ["udp", "pingpong"] {
        let line = [command, "--delay", "150ms", "--vs", "udp-raw", "--size", "1000"];
        let document = document(&[&line, SHORT].concat());
        for row in [&document["results"][0], &document["baseline"][0]] {
            let figure = if command == "udp" { &row["goodput_bps"] } else { &row["p50_ns"] };
            assert!(figure.as_f64() > Some(0.0) && row["received_bytes"].as_u64() > Some(0), "{row}");
        }
    }
}

#[test]
fn a_path_that_lets_nothing_through_is_said() {
    for path in [&["--loss", "100%", "--protection", "plaintext"][..], &["--corrupt", "100%"]] {
        let refused = output(&[&["udp"], path, SHORT].concat());
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(4), "{path:?}: {said}");
        assert!(said.contains("less --loss") && !said.contains("starved"), "{path:?}: {said}");
        assert!(refused.stdout.is_empty(), "there is no figure");
    }
}
