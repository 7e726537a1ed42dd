//! Which crate may depend on which, and what keeps the cores pure.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::problem::Problem;
use crate::shell;
use crate::tree::Tree;

/// Crates that do no I/O, read no clock and know no runtime.
const CORES: &[&str] = &["block", "journal", "nbd", "qmp", "replication", "stream"];

/// Every crate, and the crates of the workspace it may depend on. There are no other edges.
const EDGES: &[(&str, &[&str])] = &[
    ("block", &[]),
    ("nbd", &["block"]),
    ("stream", &["block"]),
    ("journal", &["block"]),
    ("replication", &["block"]),
    ("qmp", &[]),
    (
        "drivers",
        &["block", "journal", "nbd", "qmp", "replication", "stream"],
    ),
    (
        "engine",
        &[
            "block",
            "drivers",
            "journal",
            "nbd",
            "qmp",
            "replication",
            "stream",
        ],
    ),
    ("afterimage", &["engine"]),
    (
        "sim",
        &[
            "block",
            "drivers",
            "engine",
            "journal",
            "nbd",
            "qmp",
            "replication",
            "stream",
        ],
    ),
    ("xtask", &["nbd"]),
];

/// Libraries that reach the operating system; no core depends on one.
const IMPURE: &[&str] = &[
    "getrandom",
    "io-uring",
    "libc",
    "mio",
    "nix",
    "rustix",
    "socket2",
    "tempfile",
    "tokio",
];

/// Names that every core's `clippy.toml` bans, as a sign that the whole list is there.
const BANS: &[&str] = &[
    "std::time::Instant::now",
    "std::fs::File",
    "std::net::TcpStream",
    "std::thread::spawn",
];

/// A crate of the workspace and what it depends on, for any purpose.
#[derive(Debug)]
pub(crate) struct Crate {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    /// Part of the workspace.
    is_ours: bool,
    /// For tests only.
    is_dev: bool,
}

/// Asks cargo for the crates of the workspace.
pub(crate) fn read() -> Result<Vec<Crate>> {
    let metadata = shell::capture(&mut shell::cargo(&[
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]))?;
    parse(&metadata).context("cargo metadata is not what it was")
}

fn parse(metadata: &str) -> Option<Vec<Crate>> {
    let metadata: Value = serde_json::from_str(metadata).ok()?;
    let packages = metadata.get("packages")?.as_array()?.iter().map(|package| {
        let dependencies = package
            .get("dependencies")?
            .as_array()?
            .iter()
            .map(dependency);
        let name = package.get("name")?.as_str()?.to_owned();
        Some(Crate {
            name,
            dependencies: dependencies.collect::<Option<_>>()?,
        })
    });
    packages.collect()
}

fn dependency(value: &Value) -> Option<Dependency> {
    Some(Dependency {
        name: value.get("name")?.as_str()?.to_owned(),
        is_ours: value.get("path").is_some_and(Value::is_string),
        is_dev: value.get("kind").and_then(Value::as_str) == Some("dev"),
    })
}

/// Checks edges, purity and the ban on unsafe code.
pub(crate) fn check(tree: &Tree, crates: &[Crate]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for one in crates {
        problems.extend(check_edges(one));
        if CORES.contains(&one.name.as_str()) {
            problems.extend(check_purity(tree, one));
        }
        problems.extend(check_unsafe(tree, &one.name));
    }
    problems
}

fn manifest(name: &str) -> String {
    if name == "xtask" {
        "xtask/Cargo.toml".to_owned()
    } else {
        format!("crates/{name}/Cargo.toml")
    }
}

fn check_edges(one: &Crate) -> Vec<Problem> {
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == one.name) else {
        return vec![Problem::new(
            manifest(&one.name),
            "is a crate without a place in the table of edges",
        )];
    };
    let ours = one
        .dependencies
        .iter()
        .filter(|dependency| dependency.is_ours);
    ours.filter(|dependency| !allowed.contains(&dependency.name.as_str()))
        .map(|dependency| {
            let what = format!(
                "depends on `{}`; allowed: {}",
                dependency.name,
                list(allowed)
            );
            Problem::new(manifest(&one.name), what)
        })
        .collect()
}

fn check_purity(tree: &Tree, one: &Crate) -> Vec<Problem> {
    let mut problems = Vec::new();
    for dependency in one
        .dependencies
        .iter()
        .filter(|dependency| !dependency.is_dev)
    {
        if IMPURE.contains(&dependency.name.as_str()) {
            let what = format!("is a core and depends on `{}`", dependency.name);
            problems.push(Problem::new(manifest(&one.name), what));
        }
    }
    let bans = format!("crates/{}/clippy.toml", one.name);
    let text = tree.text(&bans).unwrap_or_default();
    if let Some(ban) = BANS.iter().find(|ban| !text.contains(**ban)) {
        problems.push(Problem::new(
            bans,
            format!("does not ban `{ban}`, as a core must"),
        ));
    }
    problems
}

/// `drivers` denies unsafe code and allows it where it says why; every other crate forbids it.
fn check_unsafe(tree: &Tree, name: &str) -> Option<Problem> {
    let level = if name == "drivers" {
        "#![deny(unsafe_code)]"
    } else {
        "#![forbid(unsafe_code)]"
    };
    let folder = manifest(name).replace("Cargo.toml", "src");
    let roots = ["lib.rs", "main.rs"].map(|file| format!("{folder}/{file}"));
    let bad = roots
        .iter()
        .find(|path| tree.text(path).is_some_and(|text| !text.contains(level)));
    bad.map(|path| Problem::new(path, format!("does not say `{level}`")))
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none of ours".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::{BANS, Crate, Dependency, Tree, check, parse};

    fn one(name: &str, dependencies: &[&str]) -> Crate {
        let dependency = |text: &&str| {
            let (kind, name) = text.split_once(' ').unwrap();
            Dependency {
                name: name.to_owned(),
                is_ours: kind == "our",
                is_dev: kind == "dev",
            }
        };
        Crate {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    fn said(files: &[(&str, &str)], one: Crate) -> Vec<String> {
        check(&Tree::of(files), &[one])
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_reported() {
        let said = said(&[], one("engine", &["our drivers", "our sim", "lib tokio"]));
        let allowed = "block, drivers, journal, nbd, qmp, replication, stream";
        assert_eq!(
            said,
            [format!(
                "crates/engine/Cargo.toml: depends on `sim`; allowed: {allowed}"
            )]
        );
    }

    #[test]
    fn a_crate_nobody_placed_is_reported() {
        let said = said(&[], one("helpers", &[]));
        assert_eq!(
            said,
            ["crates/helpers/Cargo.toml: is a crate without a place in the table of edges"]
        );
    }

    #[test]
    fn a_core_with_a_runtime_or_without_its_bans_is_reported() {
        let bans = BANS.join("\n");
        let full = [("crates/block/clippy.toml", bans.as_str())];
        assert_eq!(
            said(
                &full,
                one("block", &["lib tokio", "dev tempfile", "lib bytes"])
            ),
            ["crates/block/Cargo.toml: is a core and depends on `tokio`"]
        );
        assert_eq!(
            said(&[], one("block", &[])),
            ["crates/block/clippy.toml: does not ban `std::time::Instant::now`, as a core must"]
        );
    }

    #[test]
    fn a_crate_that_does_not_forbid_unsafe_code_is_reported() {
        let bare = [
            ("crates/engine/src/lib.rs", "//! E.\n"),
            ("crates/drivers/src/lib.rs", "//! D.\n"),
        ];
        let expected = "crates/engine/src/lib.rs: does not say `#![forbid(unsafe_code)]`";
        assert_eq!(said(&bare, one("engine", &[])), [expected]);
        let expected = "crates/drivers/src/lib.rs: does not say `#![deny(unsafe_code)]`";
        assert_eq!(said(&bare, one("drivers", &[])), [expected]);
    }

    #[test]
    fn metadata_is_read_with_kinds_and_paths() {
        let crates = parse(
            r#"{"packages": [{"name": "nbd", "dependencies": [
                {"name": "block", "path": "/x/block", "kind": null},
                {"name": "proptest", "kind": "dev"}]}]}"#,
        );
        expect_test::expect![[r#"
            Some(
                [
                    Crate {
                        name: "nbd",
                        dependencies: [
                            Dependency {
                                name: "block",
                                is_ours: true,
                                is_dev: false,
                            },
                            Dependency {
                                name: "proptest",
                                is_ours: false,
                                is_dev: true,
                            },
                        ],
                    },
                ],
            )
        "#]]
        .assert_debug_eq(&crates);
    }
}
