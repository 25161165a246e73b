//! The build script, run in a repository of its own: what results are said to come from.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What a program answers that ends well.
fn answer(folder: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    // A hook of git's that runs tests names its own repository.
    for name in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"] {
        command.env_remove(name);
    }
    let output = command.args(arguments).current_dir(folder).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_program_of_a_changed_tree_says_so() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commit");
    let _absent = fs::remove_dir_all(&scratch);
    let tree = scratch.join("tree");
    fs::create_dir_all(tree.join("part")).expect("the target folder is writable");
    let git = |arguments: &[&str]| answer(&tree, "git", arguments);
    if git(&["init", "--quiet"]).is_none() {
        return eprintln!("skipped: there is no git");
    }
    let script = scratch.join("script").display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    answer(&scratch, &rustc, &["--edition", "2024", "-o", &script, source]).expect("it compiles");
    let line = |begin: &str| {
        let text = answer(&tree.join("part"), &script, &[]).expect("it never fails");
        text.lines().filter_map(|line| line.strip_prefix(begin)).map(String::from).collect::<Vec<_>>()
    };
    let commit = || line("cargo::rustc-env=GPU_BENCH_COMMIT=").concat();
    assert_eq!(commit(), "", "nothing is committed yet");

    fs::write(tree.join("file"), "one").expect("it is ours");
    git(&["add", "file"]).expect("it is added");
    let identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
    git(&[&identity[..], &["commit", "--quiet", "-m", "one"]].concat()).expect("it is committed");
    let head = git(&["rev-parse", "HEAD"]).expect("there is one").trim().to_string();
    assert_eq!(commit(), head);
    fs::write(tree.join("beside"), "not of the tree").expect("it is ours");
    assert_eq!(commit(), head);
    fs::write(tree.join("file"), "two").expect("it is ours");
    assert_eq!(commit(), format!("{head}-dirty"));
    // So a change of this file, or back again, makes another build.
    let watched = line("cargo::rerun-if-changed=");
    assert!(watched.iter().any(|path| Path::new(path).ends_with("tree/file")), "{watched:?}");
    fs::write(tree.join("file"), "one").expect("it is ours");
    assert_eq!(commit(), head);
}
