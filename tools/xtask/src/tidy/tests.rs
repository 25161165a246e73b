//! Each rule once broken and once kept, on texts small enough to read.

use super::*;

const NOTHING: [usize; 0] = [];

fn found(name: &str, text: &str) -> Vec<usize> {
    judge(name, text).into_iter().map(|finding| finding.line).collect()
}

#[test]
fn the_tree_itself_is_tidy_where_the_rules_live() {
    for (name, text) in [
        ("tools/xtask/src/tidy.rs", include_str!("../tidy.rs")),
        ("tools/xtask/src/tidy/source.rs", include_str!("source.rs")),
        ("tools/xtask/src/tidy/tests.rs", include_str!("tests.rs")),
        ("tools/xtask/src/main.rs", include_str!("../main.rs")),
    ] {
        assert!(judge(name, text).is_empty(), "{name}");
    }
}

#[test]
fn blanks_at_the_end_and_a_missing_newline_are_found() {
    assert_eq!(found("a.md", "one \ntwo\n"), [1]);
    assert_eq!(found("a.md", "one\ntwo"), [2]);
    assert_eq!(found("a.md", "one\n\ntwo\n"), NOTHING);
}

#[test]
fn a_path_of_one_machine_is_found() {
    assert_eq!(found("a.md", concat!("see `/ho", "me/ada/plesio` there\n")), [1]);
    assert_eq!(found("a.md", "either/or, /usr/lib/x, /proc/self/status, https://a.org/b/c\n"), NOTHING);
    assert_eq!(found("a.rs", "//! A comment / with a division /of sorts.\n"), NOTHING);
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(found("a.rs", &"//\n".repeat(FILE_LINES_MAX)), NOTHING);
    assert_eq!(found("a.rs", &"//\n".repeat(FILE_LINES_MAX + 1)), [FILE_LINES_MAX + 1]);
}

#[test]
fn leftovers_are_found_in_code_and_not_in_strings() {
    assert_eq!(found("a.rs", "#[allow(dead_code)]\nfn a() {}\n"), [1]);
    assert_eq!(found("a.rs", "#![cfg_attr(test, allow(unused))]\n"), [1]);
    assert_eq!(found("a.rs", "fn a() { todo!() }\n"), [1]);
    assert_eq!(found("a.rs", "#[ignore]\nfn a() {}\n"), [1]);
    assert_eq!(found("a.rs", concat!("// FIX", "ME later\n")), [1]);
    assert_eq!(found("a.rs", "const A: &str = \"todo!() #[ignore]\";\n// allow(this) in words\n"), NOTHING);
}

#[test]
fn unsafe_needs_its_file_and_its_reason() {
    let bare = "fn a() {\n    unsafe { b() }\n}\n";
    assert_eq!(judge("x/src/a.rs", bare).len(), 2, "neither file nor reason");
    let explained = "fn a() {\n    // SAFETY: b asks nothing.\n    unsafe { b() }\n}\n";
    assert_eq!(judge("x/src/a.rs", explained).len(), 1, "only the file is wrong");
    let far = format!("// SAFETY: too far.\n{}unsafe {{ b() }}\n", "\n".repeat(SAFETY_LINES_MAX));
    assert_eq!(judge("x/src/a.rs", &far).len(), 2);
    let contract =
        "/// Adds.\n///\n/// # Safety\n/// `p` is valid.\n#[inline]\npub unsafe fn a(p: *mut u8) {}\n";
    assert_eq!(judge("x/src/a.rs", contract).len(), 1, "a contract explains an unsafe fn");
    assert_eq!(
        found("x/src/a.rs", "#![forbid(unsafe_code)]\n// unsafe { }\nlet a = \"unsafe {\";\n"),
        NOTHING
    );
}

#[test]
fn a_crate_says_its_kind() {
    assert_eq!(found("x/src/lib.rs", "//! Words.\n"), [1]);
    assert_eq!(found("x/src/lib.rs", "//! Pure. Words.\n#![forbid(unsafe_code)]\n"), [1]);
    assert_eq!(found("x/src/lib.rs", "//! Pure. Words.\n#![no_std]\n#![forbid(unsafe_code)]\n"), NOTHING);
    assert_eq!(found("x/src/lib.rs", "//! Shell. Threads.\n"), [1]);
    assert_eq!(found("x/src/lib.rs", "//! Unsafe core. Sockets.\n"), NOTHING);
}

#[test]
fn literals_and_comments_are_parted_from_code() {
    let text =
        "let a = r#\"unsafe \" //\"#; let b = '\"'; // c\nlet l: &'a str = b; /* unsafe\nunsafe */ d\n";
    let lines = source::lines(text);
    assert_eq!(lines[0].code, "let a = ; let b = ; ");
    assert_eq!(lines[0].comment, "// c");
    assert_eq!(lines[1].code, "let l: &'a str = b; ");
    assert_eq!(lines[2].code, " d");
    assert_eq!(source::lines("'\\'' '\\u{41}' x").first().unwrap().code, "  x");
}
