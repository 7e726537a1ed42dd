//! What `apt-get` has to do for a list of missing packages, and doing it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::sources::{self, Edit};
use crate::shell;

/// The steps that bring the missing packages.
pub(crate) struct Plan {
    suite: Option<SuiteEdit>,
    installs: Vec<Install>,
}

/// A suite that is not configured yet: which file gains it, and how.
struct SuiteEdit {
    suite: String,
    file: String,
    edit: Edit,
}

/// One `apt-get install`.
struct Install {
    /// The suite whose versions win, where it is not the release itself.
    from: Option<String>,
    packages: Vec<&'static str>,
}

/// `apt-get` in the C locale, asking nothing.
pub(crate) fn get(args: &[&str]) -> Command {
    let mut command = shell::tool("apt-get", args);
    command
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Decides where the `missing` packages come from. Changes nothing.
pub(crate) fn plan(missing: &[&'static str]) -> Result<Plan> {
    let (qemu, others): (Vec<_>, Vec<_>) = missing
        .iter()
        .copied()
        .partition(|name| name.starts_with("qemu-"));
    let mut plan = Plan {
        suite: None,
        installs: Vec::new(),
    };
    if !others.is_empty() {
        plan.installs.push(Install {
            from: None,
            packages: others,
        });
    }
    let Some(first) = qemu.first() else {
        return Ok(plan);
    };
    let from = match newest_installed_qemu()? {
        Some(installed) if is_newer(&installed, &candidate(first)?)? => Some(backports(&mut plan)?),
        Some(_) | None => None,
    };
    plan.installs.push(Install {
        from,
        packages: qemu,
    });
    Ok(plan)
}

impl Plan {
    /// The plan as commands to type.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        lines.extend(
            self.suite
                .iter()
                .map(|suite| suite.edit.command(&suite.file)),
        );
        lines.push("apt-get update".to_owned());
        lines.extend(
            self.installs
                .iter()
                .map(|install| shell::line(&install.command(&[]))),
        );
        lines
    }
}

/// Carries `plan` out, saying each step. Needs root.
pub(crate) fn carry_out(plan: &Plan) -> Result<()> {
    if let Some(SuiteEdit { suite, file, edit }) = &plan.suite {
        println!("adding the suite {suite} to {file}, where the release itself is configured");
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        fs::write(file, edit.apply(&text)).with_context(|| format!("cannot write {file}"))?;
        shell::run(&mut get(&["update"]))?;
    }
    for install in &plan.installs {
        let simulation = shell::capture(&mut install.command(&["--simulate"]))?;
        if let Some(harm) = harm(&simulation) {
            bail!(
                "{} would do harm: {harm}",
                shell::line(&install.command(&[]))
            );
        }
        shell::run(&mut install.command(&["--yes", "-o", "Acquire::Retries=3"]))?;
    }
    Ok(())
}

impl Install {
    fn command(&self, options: &[&str]) -> Command {
        let mut command = get(&["install", "--no-install-recommends", "--no-remove"]);
        command.args(options);
        if let Some(suite) = &self.from {
            command.args(["--target-release", suite]);
        }
        command.args(&self.packages);
        command
    }
}

/// The line of a simulation that says a package would be removed or downgraded.
fn harm(simulation: &str) -> Option<&str> {
    simulation.lines().find(|line| {
        line.starts_with("Remv ") || line.starts_with("Purg ") || line.contains(" DOWNGRADED")
    })
}

/// The backports suite of this release; one not configured yet becomes part of the plan.
fn backports(plan: &mut Plan) -> Result<String> {
    let os_release =
        fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = sources::codename(&os_release)?;
    let suite = format!("{codename}-backports");
    let format = [
        "indextargets",
        "--format",
        sources::INDEX_FORMAT,
        "Created-By: Packages",
    ];
    let indexes = shell::capture(&mut get(&format))?;
    if !sources::has_suite(&indexes, &suite) {
        let entry = sources::debian_entry(&indexes, &codename)
            .with_context(|| format!("no source of Debian {codename} is configured"))?;
        let text = fs::read_to_string(Path::new(&entry.file))
            .with_context(|| format!("cannot read {}", entry.file))?;
        let edit = Edit::find(&text, &entry, &codename, &suite)?;
        plan.suite = Some(SuiteEdit {
            suite: suite.clone(),
            file: entry.file,
            edit,
        });
    }
    Ok(suite)
}

/// The highest version among the installed packages that are built from QEMU's source.
fn newest_installed_qemu() -> Result<Option<String>> {
    let format = "--showformat=${source:Package}|${db:Status-Status}|${Version}\\n";
    let all = shell::capture(&mut shell::tool("dpkg-query", &["--show", format]))?;
    let mut newest: Option<String> = None;
    for version in all
        .lines()
        .filter_map(|line| line.strip_prefix("qemu|installed|"))
    {
        match &newest {
            Some(best) if !is_newer(version, best)? => {}
            Some(_) | None => newest = Some(version.to_owned()),
        }
    }
    Ok(newest)
}

/// The version that `apt-get install` would take by itself; empty if there is none.
fn candidate(package: &str) -> Result<String> {
    let mut policy = shell::tool("apt-cache", &["policy", package]);
    let policy = shell::capture(policy.env("LC_ALL", "C"))?;
    let line = policy
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("Candidate: "));
    Ok(line
        .filter(|version| *version != "(none)")
        .unwrap_or_default()
        .to_owned())
}

/// Compares as Debian does; the empty version is older than any other.
fn is_newer(version: &str, than: &str) -> Result<bool> {
    let args = ["--compare-versions", version, "gt", than];
    Ok(shell::tool("dpkg", &args)
        .status()
        .context("cannot start dpkg")?
        .success())
}

#[cfg(test)]
mod tests {
    use super::{Edit, Install, Plan, SuiteEdit, harm};

    #[test]
    fn what_removes_or_downgrades_is_harm() {
        assert_eq!(harm("Inst fio (3.33-3 Debian:12)\nConf fio\n"), None);
        let removal = "Inst qemu-system-x86 (1:7.2)\nRemv qemu-utils [1:10.0.2]\n";
        assert_eq!(harm(removal), Some("Remv qemu-utils [1:10.0.2]"));
        let downgrade = "The following packages will be DOWNGRADED:\n  qemu-utils\n";
        assert_eq!(
            harm(downgrade),
            Some("The following packages will be DOWNGRADED:")
        );
    }

    #[test]
    fn the_lines_to_type_are_what_would_be_done() {
        let edit = Edit::Append {
            line: 4,
            suite: "bookworm-backports".to_owned(),
        };
        let file = "debian.sources".to_owned();
        let plan = Plan {
            suite: Some(SuiteEdit {
                suite: "bookworm-backports".to_owned(),
                file,
                edit,
            }),
            installs: vec![
                Install {
                    from: None,
                    packages: vec!["fio", "nbdkit"],
                },
                Install {
                    from: Some("bookworm-backports".to_owned()),
                    packages: vec!["qemu-system-x86"],
                },
            ],
        };
        expect_test::expect![[r"
            sed -i '4s/$/ bookworm-backports/' debian.sources
            apt-get update
            apt-get install --no-install-recommends --no-remove fio nbdkit
            apt-get install --no-install-recommends --no-remove --target-release bookworm-backports qemu-system-x86"]]
        .assert_eq(&plan.lines().join("\n"));
    }
}
