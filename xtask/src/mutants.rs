//! `cargo xtask mutants`: planted faults, each of which the named test must find.
//!
//! A mutant is a patch `mutants/NAME.patch` with a line `kills: PACKAGE TEST` above the diff, TEST
//! being the test's full path. It is applied to a copy of the tree below `target/mutants`, whose
//! build folder all mutants share, so that each costs an incremental build. Before the first
//! fault is planted every named test must pass in the copy: a test that always fails finds nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::suites::Count;
use crate::{shell, tree};

/// A test that runs longer is ended, and has not found the fault: it has to bound its own waits.
const LIMIT_SECONDS: &str = "600";

/// One planted fault.
struct Mutant {
    name: String,
    patch: PathBuf,
    kills: Test,
}

/// A test, and the package it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Test {
    package: String,
    path: String,
}

/// Plants every fault, or the `chosen` one; an error names those that were not found.
pub(crate) fn run(chosen: Option<&str>) -> Result<()> {
    let mutants = read(&shell::root().join("mutants"), chosen)?;
    let copy = Copy::make()?;
    let mut checked: Vec<&Test> = Vec::new();
    for mutant in &mutants {
        if !checked.contains(&&mutant.kills) {
            copy.expect(&mutant.kills, Outcome::Passed)
                .context("without any fault planted")?;
            checked.push(&mutant.kills);
        }
    }
    let mut failures = Vec::new();
    for mutant in &mutants {
        println!("\n-- {}", mutant.name);
        match copy.try_out(mutant) {
            Ok(()) => println!("{} was found by {}", mutant.name, mutant.kills.path),
            Err(error) => failures.push(format!("{}: {error:#}", mutant.name)),
        }
    }
    match failures.as_slice() {
        [] => {
            println!("{} mutants, all found", mutants.len());
            Ok(())
        }
        failures => bail!("{}", failures.join("\n")),
    }
}

/// Reads the patches, in the order of their names.
fn read(folder: &Path, chosen: Option<&str>) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let patch = entry?.path();
        let name = patch
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if patch.extension().is_some_and(|end| end == "patch")
            && chosen.is_none_or(|one| one == name)
        {
            let text = fs::read_to_string(&patch)?;
            let kills =
                kills(&text).with_context(|| format!("{name}: no line `kills: PACKAGE TEST`"))?;
            mutants.push(Mutant { name, patch, kills });
        }
    }
    mutants.sort_by(|a, b| a.name.cmp(&b.name));
    match mutants.as_slice() {
        [] => bail!("no such mutant in {}", folder.display()),
        _ => Ok(mutants),
    }
}

/// The test named above the diff.
fn kills(text: &str) -> Option<Test> {
    let mut above = text
        .lines()
        .take_while(|line| !line.starts_with("diff ") && !line.starts_with("--- "));
    let line = above.find_map(|line| line.strip_prefix("kills: "))?;
    let (package, path) = line.trim().split_once(' ')?;
    Some(Test {
        package: package.to_owned(),
        path: path.trim().to_owned(),
    })
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
}

/// The copy of the tree into which faults are planted.
struct Copy {
    tree: PathBuf,
    build: PathBuf,
}

impl Copy {
    /// Brings the copy level with the tree.
    fn make() -> Result<Self> {
        let folder = shell::target()?.join("mutants");
        let copy = Self {
            tree: folder.join("tree"),
            build: folder.join("build"),
        };
        let listed = tree::listed(&shell::root())?;
        for stale in files_below(&copy.tree, &copy.tree)? {
            if !listed.contains(&stale) {
                fs::remove_file(copy.tree.join(stale))?;
            }
        }
        for path in listed {
            copy.restore(&path)?;
        }
        Ok(copy)
    }

    /// Copies one file if it differs; an untouched one keeps its time, which cargo goes by.
    fn restore(&self, path: &str) -> Result<()> {
        let target = self.tree.join(path);
        let Ok(original) = fs::read(shell::root().join(path)) else {
            return Ok(()); // Deleted, and not yet so in the index.
        };
        if fs::read(&target).is_ok_and(|present| present == original) {
            return Ok(());
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&target, original).with_context(|| format!("cannot write {}", target.display()))
    }

    /// Plants the fault, runs the test, takes the fault out again.
    fn try_out(&self, mutant: &Mutant) -> Result<()> {
        let patch = mutant.patch.to_string_lossy();
        shell::capture(&mut self.git(&["apply", "--whitespace=nowarn", &patch]))
            .context("the patch does not apply: the code has moved on")?;
        let outcome = self.expect(&mutant.kills, Outcome::Failed);
        let touched = shell::capture(&mut self.git(&["apply", "--numstat", &patch]))?;
        for path in touched.lines().filter_map(|line| line.rsplit('\t').next()) {
            self.restore(path)?;
        }
        outcome
    }

    /// Runs one test, which must come to the `expected` end.
    fn expect(&self, test: &Test, expected: Outcome) -> Result<()> {
        let args = [
            "test",
            "--quiet",
            "--all-targets",
            "--no-fail-fast",
            "--package",
            &test.package,
        ];
        let mut compile = self.cargo(&args);
        shell::run(compile.arg("--no-run")).context("does not compile")?;
        let mut run = self.cargo(&args);
        let heard = shell::listen(run.args(["--", "--exact", &test.path]))?;
        let outcome = match Count::of(&heard.lines) {
            Count { failed: 1.., .. } => Outcome::Failed,
            Count { passed: 1.., .. } => Outcome::Passed,
            Count { .. } => bail!(
                "{} has no test {}, or it did not end",
                test.package,
                test.path
            ),
        };
        match (outcome, expected) {
            (Outcome::Passed, Outcome::Failed) => bail!("{} did not find it", test.path),
            (Outcome::Failed, Outcome::Passed) => bail!("{} fails", test.path),
            (Outcome::Passed, Outcome::Passed) | (Outcome::Failed, Outcome::Failed) => Ok(()),
        }
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let cargo = shell::cargo(&[]);
        let mut command = shell::tool("timeout", &["--kill-after=5", LIMIT_SECONDS]);
        command
            .arg(cargo.get_program())
            .args(args)
            .current_dir(&self.tree);
        command
            .env("CARGO_TARGET_DIR", &self.build)
            .env("RUST_BACKTRACE", "0");
        command
    }

    /// `git` in the copy, which lies inside the repository but is none of its work trees.
    fn git(&self, args: &[&str]) -> Command {
        let mut command = shell::tool("git", args);
        let above = self.tree.parent().unwrap_or(&self.tree);
        command
            .current_dir(&self.tree)
            .env("GIT_CEILING_DIRECTORIES", above);
        command
    }
}

/// The files below `folder`, relative to `base`, with `/`.
fn files_below(folder: &Path, base: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(files);
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path, base)?);
        } else if let Ok(relative) = path.strip_prefix(base) {
            files.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{Test, kills};

    #[test]
    fn the_test_is_named_above_the_diff() {
        let test = Test {
            package: "sim".to_owned(),
            path: "scripts::overlap".to_owned(),
        };
        let patch =
            "Skip the copy of a cluster.\nkills: sim scripts::overlap\n\ndiff --git a/x b/x\n";
        assert_eq!(kills(patch), Some(test));
        assert_eq!(
            kills("diff --git a/x b/x\nkills: sim scripts::overlap\n"),
            None
        );
        assert_eq!(kills("kills: sim\ndiff --git a/x b/x\n"), None);
    }
}
