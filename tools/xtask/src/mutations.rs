//! Rules broken on purpose: each patch of `tests/mutations` weakens one, and a check must notice.
//!
//! ```text
//!   Breaks: what it weakens, in a sentence or two
//!   Expect: words, one of which the check must say           several are parted by |
//!   Build: what must succeed first                           left out: the command line
//!   Check: what must fail then                               left out: the simulator, with all faults
//!   Short: yes                                               one of the few that every CI run tries
//!   diff --git ...
//! ```
//!
//! A line that begins with blanks goes on with the one before. The tree is copied below the target folder and patched
//! there, so the working tree is never touched; all patches share one target folder, so each builds little.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

/// Where the patches are.
pub(crate) const FOLDER: &str = "tests/mutations";

const BUILD: &str = "cargo build --locked --release --quiet --package plesio-cli";
const CHECK: &str = "cargo run --locked --release --quiet --package plesio-cli -- sim --nodes 5 --seeds 0..300 \
                     --faults all --seconds 12 --fail-fast --quiet";

/// One patch and its header.
#[derive(Debug, Eq, PartialEq)]
struct Mutation {
    name: String,
    file: PathBuf,
    breaks: String,
    expect: Vec<String>,
    build: String,
    check: String,
    short: bool,
}

impl Mutation {
    fn read(file: &Path) -> Result<Self, String> {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Self::parse(&name, file, &text)
    }

    fn parse(name: &str, file: &Path, text: &str) -> Result<Self, String> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in text.lines().take_while(|line| !line.starts_with("diff ") && !line.starts_with("--- ")) {
            match (line.split_once(':'), fields.last_mut()) {
                _ if line.trim().is_empty() => {}
                (_, Some((_, value))) if line.starts_with(' ') => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                (Some((field, value)), _) => fields.push((field.to_string(), value.trim().to_string())),
                _ => return Err(format!("{name}: {line:?} is no line of a header")),
            }
        }
        let known = ["Breaks", "Expect", "Build", "Check", "Short"];
        if let Some((field, _)) = fields.iter().find(|(field, _)| !known.contains(&field.as_str())) {
            return Err(format!("{name}: there is no field {field:?}; there are {known:?}"));
        }
        let field =
            |wanted| fields.iter().find(|(field, _)| field == wanted).map(|(_, value)| value.as_str());
        let needed = |wanted| field(wanted).ok_or_else(|| format!("{name}: the header has no {wanted}"));
        Ok(Self {
            name: name.to_string(),
            file: file.to_path_buf(),
            breaks: needed("Breaks")?.to_string(),
            expect: needed("Expect")?.split('|').map(|words| words.trim().to_string()).collect(),
            build: field("Build").unwrap_or(BUILD).to_string(),
            check: field("Check").unwrap_or(CHECK).to_string(),
            short: field("Short").is_some_and(|value| value == "yes"),
        })
    }

    /// The first line that says one of the expected words.
    fn found<'a>(&self, said: &'a str) -> Option<&'a str> {
        said.lines().find(|line| self.expect.iter().any(|words| line.contains(words.as_str())))
    }
}

/// `mutations`: builds the tree with each patch and expects its check to fail.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let (mut only, mut short) = (Vec::new(), false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => only.push(arguments.next().ok_or("--only needs a name")?.clone()),
            "--short" => short = true,
            other => return Err(format!("unknown argument {other:?}; it takes --only NAME and --short")),
        }
    }
    let all = read_all(root)?;
    if let Some(name) = only.iter().find(|name| all.iter().all(|mutation| mutation.name != **name)) {
        let names: Vec<&str> = all.iter().map(|mutation| mutation.name.as_str()).collect();
        return Err(format!("there is no mutation {name:?}; there are {}", names.join(", ")));
    }
    let wanted = |mutation: &&Mutation| {
        if only.is_empty() { !short || mutation.short } else { only.contains(&mutation.name) }
    };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let scratch =
        Scratch { root, tree: target.join("mutations/tree"), target: target.join("mutations/target") };
    let mut missed = Vec::new();
    for mutation in all.iter().filter(wanted) {
        let begin = Instant::now();
        let outcome = scratch.try_out(mutation);
        let seconds = begin.elapsed().as_secs_f64();
        match outcome {
            Ok(line) => println!("{:28} {seconds:6.1} s  {}", mutation.name, line.trim()),
            Err(what) => {
                println!(
                    "{:28} {seconds:6.1} s  MISSED: {what}\n    it breaks: {}",
                    mutation.name, mutation.breaks
                );
                missed.push(mutation.name.as_str());
            }
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("not caught: {}", missed.join(", "))) }
}

/// What is wrong with the patches as they stand: a header, or that one does not apply any more.
pub(crate) fn stale(root: &Path) -> Vec<(String, String)> {
    let mutations = match read_all(root) {
        Ok(mutations) => mutations,
        Err(what) => return vec![(FOLDER.to_string(), what)],
    };
    let fails = |mutation: &Mutation| {
        let output = git(root).args(["apply", "--check"]).arg(&mutation.file).output();
        let what = match output {
            Ok(output) if output.status.success() => return None,
            Ok(output) => {
                String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_string()
            }
            Err(_) => return None, // without git nobody can say
        };
        Some((format!("{FOLDER}/{}.patch", mutation.name), format!("it does not apply any more: {what}")))
    };
    mutations.iter().filter_map(fails).collect()
}

fn read_all(root: &Path) -> Result<Vec<Mutation>, String> {
    let folder = root.join(FOLDER);
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "patch"));
    files.sort();
    files.iter().map(|file| Mutation::read(file)).collect()
}

/// Git as if no repository were around: patches are meant for the folder that it is called in.
fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder);
    if let Some(above) = folder.parent() {
        git.env("GIT_CEILING_DIRECTORIES", above);
    }
    git
}

struct Scratch<'a> {
    root: &'a Path,
    tree: PathBuf,
    target: PathBuf,
}

impl Scratch<'_> {
    /// The line in which the check noticed.
    fn try_out(&self, mutation: &Mutation) -> Result<String, String> {
        self.copy()?;
        let applied = git(&self.tree).args(["apply"]).arg(&mutation.file).output();
        let applied = applied.map_err(|error| format!("cannot start git: {error}"))?;
        if !applied.status.success() {
            return Err(format!("it does not apply: {}", said(&applied)));
        }
        let built = self.command(&mutation.build)?;
        if !built.status.success() {
            return Err(format!("it does not build: {}", said(&built)));
        }
        let checked = self.command(&mutation.check)?;
        let said = said(&checked);
        match mutation.found(&said) {
            _ if checked.status.success() => Err("the check passes".into()),
            Some(line) => Ok(line.to_string()),
            None => Err(format!("the check fails in another way: {said}")),
        }
    }

    fn command(&self, line: &str) -> Result<Output, String> {
        let mut words = line.split_whitespace();
        let program: OsString = match words.next() {
            Some("cargo") => std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            Some(program) => program.into(),
            None => return Err("an empty command".into()),
        };
        let mut command = Command::new(program);
        command.args(words).current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        // Nobody looks into these builds with a debugger.
        command.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        command.output().map_err(|error| format!("{line}: {error}"))
    }

    /// Makes the copy what the working tree is. What has not changed is not touched, so cargo builds it once.
    fn copy(&self) -> Result<(), String> {
        let say = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        let files = crate::tidy::files(self.root)?;
        for file in files.iter().filter(|file| self.root.join(file).is_file()) {
            let (from, to) = (self.root.join(file), self.tree.join(file));
            let wanted = std::fs::read(&from).map_err(|error| say(&from, error))?;
            if std::fs::read(&to).is_ok_and(|found| found == wanted) {
                continue;
            }
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder).map_err(|error| say(folder, error))?;
            }
            std::fs::write(&to, wanted).map_err(|error| say(&to, error))?;
        }
        Ok(())
    }
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read() {
        let text = "Breaks: a rule,\n  twice\nExpect: I5: | I6:\nShort: yes\n\ndiff --git a/x b/x\nBreaks: not here\n";
        let mutation = Mutation::parse("one", Path::new("one.patch"), text).expect("a good header");
        assert_eq!((mutation.breaks.as_str(), mutation.short), ("a rule, twice", true));
        assert_eq!((mutation.check.as_str(), mutation.expect.len()), (CHECK, 2));
        assert_eq!(mutation.found("nothing\nseed 3: I6: twice\n"), Some("seed 3: I6: twice"));
        assert_eq!(mutation.found("error: cannot compile"), None);
        for wrong in ["Breaks: x\n", "Expect: x\n", "Breaks: x\nExpect: y\nWhat: z\n", "no header\n"] {
            assert!(Mutation::parse("one", Path::new("one.patch"), wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_patch_applies() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert_eq!(stale(&root), []);
        let all = read_all(&root).expect("patches with headers");
        assert!(all.len() >= 10 && all.iter().any(|mutation| mutation.short));
    }
}
