//! Dependencies point down: the crate graph against the floors that ARCHITECTURE.md draws.
//!
//! Reads `cargo metadata` and judges every edge between crates of the workspace. A new crate fails here
//! until it has its floor in [`FLOORS`]; an edge within a floor needs its reason in [`SIDEWAYS`]; a crate
//! from outside needs its sentence under "Dependencies" in ARCHITECTURE.md.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Computes; no clock, no socket, no unsafe.
    Pure,
    /// Talks to the kernel or to mapped memory, in the files named for it.
    UnsafeCore,
    /// Owns threads, sockets and files; decides nothing.
    Shell,
}

/// Every crate of the workspace: its floor and its kind.
const FLOORS: &[(&str, u32, Kind)] = &[
    ("plesio-wire", 0, Kind::Pure),
    ("plesio-collective", 1, Kind::Pure),
    ("plesio-consensus", 1, Kind::Pure),
    ("plesio-kernels", 1, Kind::Pure),
    ("plesio-membership", 1, Kind::Pure),
    ("plesio-model", 1, Kind::Pure),
    ("plesio-phase", 1, Kind::Pure),
    ("plesio-proto", 1, Kind::Pure),
    ("plesio-session", 1, Kind::Pure),
    ("plesio-artefact", 2, Kind::Shell),
    ("plesio-cpu", 2, Kind::UnsafeCore),
    ("plesio-cuda", 2, Kind::UnsafeCore),
    ("plesio-hip", 2, Kind::UnsafeCore),
    ("plesio-launch", 2, Kind::UnsafeCore),
    ("plesio-memory", 2, Kind::UnsafeCore),
    ("plesio-udp", 2, Kind::UnsafeCore),
    ("plesio-sideband", 3, Kind::Shell),
    ("plesio", 4, Kind::Shell),
    ("gpu-bench", 5, Kind::Shell),
    ("plesio-cli", 5, Kind::Shell),
    ("plesio-conformance", 5, Kind::Shell),
    ("plesio-emulator", 5, Kind::UnsafeCore),
    ("plesio-netns", 5, Kind::Shell),
    ("plesio-relay", 5, Kind::Shell),
    ("plesio-sim", 5, Kind::Shell),
    ("xtask", 5, Kind::Shell),
    ("plesio-benches", 6, Kind::Shell),
    ("plesio-tests", 6, Kind::Shell),
];

/// Edges within one floor, each with its reason.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("gpu-bench", "plesio-conformance", "a GPU passes what the emulator passes"),
    ("plesio-cli", "plesio-netns", "`plesio bench phase` puts its processes on two hosts"),
    ("plesio-cli", "plesio-relay", "`plesio bench relay`, and the bad paths of demo and bench"),
    ("plesio-cli", "plesio-sim", "`plesio sim` runs the simulator"),
    ("plesio-collective", "plesio-kernels", "how long an encoded range is, and where one may begin"),
    ("plesio-consensus", "plesio-collective", "whoever proposes a view solves the shares that it states"),
    ("plesio-cpu", "plesio-memory", "sums are made where several processes map the tensors"),
    ("plesio-launch", "plesio-cpu", "the CPU does what a device cannot"),
    ("plesio-launch", "plesio-memory", "devices read arenas in place"),
    ("plesio-launch", "plesio-artefact", "the manifest that is written is the one that is read"),
    ("plesio-cuda", "plesio-launch", "it is a `Runtime`, and the seam is drawn there"),
    ("plesio-hip", "plesio-launch", "it is a `Runtime`, and the seam is drawn there"),
    ("plesio-model", "plesio-kernels", "the model's mathematics goes through `Device`"),
    ("plesio-relay", "plesio-sim", "real datagrams suffer what simulated ones do: one machine"),
    ("plesio-udp", "plesio-memory", "a datagram's payload is gathered from and scattered into the arena"),
];

/// Policies: the program that composes a node knows them, they do not know each other.
const POLICIES: &[&str] = &["plesio-adapt", "plesio-experts", "plesio-plan", "plesio-pool"];

/// What the judge needs of one crate: whom it depends on, in its code or only in its tests.
#[derive(Debug, Default)]
struct Edges {
    uses: Vec<String>,
    tests_with: Vec<String>,
}

type Graph = BTreeMap<String, Edges>;

fn floor(name: &str) -> Option<(u32, Kind)> {
    FLOORS.iter().find(|(known, ..)| *known == name).map(|(_, floor, kind)| (*floor, *kind))
}

/// Every broken rule of a graph, one sentence each.
fn judge(graph: &Graph, sideways: &[(&str, &str, &str)]) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, edges) in graph {
        for target in edges.uses.iter().chain(&edges.tests_with) {
            if POLICIES.contains(&name.as_str()) && POLICIES.contains(&target.as_str()) {
                broken.push(format!("{name} and {target} are policies and must not know each other"));
            }
        }
        let Some((level, kind)) = floor(name) else {
            broken.push(format!("{name} has no floor: give it one in FLOORS and in ARCHITECTURE.md"));
            continue;
        };
        for target in edges.uses.iter().filter(|target| graph.contains_key(*target)) {
            let Some((below, target_kind)) = floor(target) else { continue };
            let reasoned =
                sideways.iter().any(|(from, to, reason)| from == name && to == target && !reason.is_empty());
            if below > level {
                broken.push(format!("{name} (floor {level}) reaches up to {target} (floor {below})"));
            } else if below == level && !reasoned {
                broken.push(format!("{name} reaches sideways to {target} without a reason in SIDEWAYS"));
            }
            if kind == Kind::Pure && target_kind != Kind::Pure {
                broken.push(format!("{name} is pure and depends on {target}, which is not"));
            }
        }
        for target in edges.tests_with.iter().filter(|target| graph.contains_key(*target)) {
            if floor(target).is_some_and(|(below, _)| below > level) {
                broken.push(format!("the tests of {name} reach up to {target}: they belong to plesio-tests"));
            }
        }
    }
    for (from, to, _) in sideways {
        if !graph.get(*from).is_some_and(|edges| edges.uses.iter().any(|target| target == to)) {
            broken.push(format!("SIDEWAYS lists {from} -> {to}, and there is no such edge: take it out"));
        }
    }
    for (name, ..) in FLOORS {
        if !graph.contains_key(*name) {
            broken.push(format!("FLOORS lists {name}, and there is no such crate: take it out"));
        }
    }
    broken
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_path_buf()
}

/// The workspace's packages as `cargo metadata` tells them.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs this test, so cargo is there");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    document["packages"].as_array().expect("cargo metadata lists packages").clone()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("cargo metadata gives every package a {field}"))
}

fn dependencies(package: &Value) -> &[Value] {
    package["dependencies"].as_array().expect("cargo metadata lists dependencies")
}

fn graph(packages: &[Value]) -> Graph {
    let mut graph = Graph::new();
    for package in packages {
        let edges = graph.entry(text(package, "name").to_string()).or_default();
        for dependency in dependencies(package) {
            let name = text(dependency, "name").to_string();
            let only_tests = dependency["kind"].as_str() == Some("dev");
            let list = if only_tests { &mut edges.tests_with } else { &mut edges.uses };
            list.push(name);
        }
    }
    graph
}

#[test]
fn no_edge_points_up() {
    let broken = judge(&graph(&packages()), SIDEWAYS);
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_crate_says_the_kind_that_its_floor_has() {
    for package in packages() {
        let name = text(&package, "name");
        let Some((_, kind)) = floor(name) else { panic!("{name} has no floor") };
        let folder =
            Path::new(text(&package, "manifest_path")).parent().expect("a manifest lies in a folder");
        let source = ["src/lib.rs", "src/main.rs"]
            .iter()
            .find_map(|file| std::fs::read_to_string(folder.join(file)).ok())
            .unwrap_or_else(|| panic!("{name} has neither src/lib.rs nor src/main.rs"));
        let says = match kind {
            Kind::Pure => "//! Pure.",
            Kind::UnsafeCore => "//! Unsafe core.",
            Kind::Shell => "//! Shell.",
        };
        assert!(source.starts_with(says), "{name} begins with {:?}, not {says:?}", source.lines().next());
    }
}

#[test]
fn the_architecture_names_every_crate_inside_and_outside() {
    let architecture =
        std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let packages = packages();
    let inside: Vec<&str> = packages.iter().map(|package| text(package, "name")).collect();
    let outside = packages.iter().flat_map(dependencies).map(|dependency| text(dependency, "name"));
    for name in inside.iter().copied().chain(outside) {
        assert!(
            architecture.contains(&format!("`{name}`")),
            "ARCHITECTURE.md does not say why there is `{name}`"
        );
    }
}

#[test]
fn the_root_offers_nothing_that_nobody_takes() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the root has its manifest");
    let offered = manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name);
    let packages = packages();
    let taken: Vec<&str> =
        packages.iter().flat_map(dependencies).map(|dependency| text(dependency, "name")).collect();
    let idle: Vec<&str> = offered.filter(|name| !taken.contains(name)).collect();
    assert_eq!(idle, [""; 0], "workspace dependencies that no crate uses: take them out");
}

/// The whole workspace without edges, to which a test adds the edge it is about.
fn bare() -> Graph {
    FLOORS.iter().map(|(name, ..)| (name.to_string(), Edges::default())).collect()
}

fn with_edge(from: &str, to: &str) -> Graph {
    let mut graph = bare();
    graph.entry(from.to_string()).or_default().uses.push(to.to_string());
    graph
}

#[test]
fn the_judge_finds_each_broken_rule() {
    let none: &[(&str, &str, &str)] = &[];
    assert_eq!(judge(&bare(), none), [""; 0]);
    assert_eq!(judge(&with_edge("plesio", "plesio-wire"), none), [""; 0]);
    assert_eq!(judge(&with_edge("plesio-wire", "serde"), none), [""; 0], "outside crates have no floor");

    let up = judge(&with_edge("plesio-sideband", "plesio"), none);
    assert_eq!(up, ["plesio-sideband (floor 3) reaches up to plesio (floor 4)"]);
    let impure = judge(&with_edge("plesio-model", "plesio-cpu"), none);
    assert_eq!(impure.len(), 2, "upwards and out of the pure floor: {impure:?}");

    let edge = ("plesio-cli", "plesio-sim");
    assert_eq!(judge(&with_edge(edge.0, edge.1), none).len(), 1);
    assert_eq!(judge(&with_edge(edge.0, edge.1), &[(edge.0, edge.1, "a command")]), [""; 0]);
    assert_eq!(judge(&with_edge(edge.0, edge.1), &[(edge.0, edge.1, "")]).len(), 1, "a reason is owed");
    assert_eq!(judge(&bare(), &[(edge.0, edge.1, "a command")]).len(), 1, "a stale entry");

    assert_eq!(judge(&with_edge("plesio-new", "plesio-wire"), none).len(), 1, "an unknown crate");
    let mut tested = bare();
    tested.entry("plesio-proto".into()).or_default().tests_with.push("plesio-sim".into());
    assert_eq!(judge(&tested, none).len(), 1, "a test that reaches up");
    let strangers = judge(&with_edge("plesio-plan", "plesio-pool"), none).join("\n");
    assert!(strangers.contains("plesio-plan and plesio-pool are policies"), "{strangers}");
    let mut missing = bare();
    missing.remove("plesio-phase");
    assert_eq!(judge(&missing, none).len(), 1, "a floor without its crate");
}
