//! The Debian packages the tests need, and how they come onto a machine.
//!
//! Contract: no package is ever removed or downgraded. Every installation is simulated first and
//! refused if it would. QEMU's packages come from one source release; where one of them is
//! installed in a newer version than the configured sources hold, the others are taken from the
//! release's backports suite, which is added to the Debian source already configured.
//!
//! Only root installs; anybody else is told the lines to type.

mod apt;
mod sources;

use anyhow::{Result, bail};

use crate::shell;

/// Whether missing packages may be installed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Install them, if we are root.
    Install,
    /// Say what to type, and fail.
    OnlySay,
}

impl Policy {
    /// `--no-install` given or not.
    pub(crate) fn from_flag(no_install: bool) -> Self {
        if no_install {
            Self::OnlySay
        } else {
            Self::Install
        }
    }
}

/// A package and the programs the tests run from it.
pub(crate) struct Package {
    name: &'static str,
    programs: &'static [&'static str],
}

const fn package(name: &'static str, programs: &'static [&'static str]) -> Package {
    Package { name, programs }
}

/// Everything the tests, the fuzz targets and the benchmarks start.
const PACKAGES: &[Package] = &[
    package("fio", &["fio"]),
    package("nbdkit", &["nbdkit"]),
    package("libnbd-bin", &["nbdinfo", "nbdcopy"]),
    package("python3-libnbd", &["nbdsh"]),
    package("g++", &["g++"]),
    package(
        "qemu-utils",
        &["qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon"],
    ),
    package("qemu-system-x86", &["qemu-system-x86_64"]),
];

/// Makes sure every program of [`PACKAGES`] is there.
pub(crate) fn provide(policy: Policy) -> Result<()> {
    let missing = missing(&shell::on_path);
    if missing.is_empty() {
        return Ok(());
    }
    println!("missing packages: {}", missing.join(" "));
    if !shell::on_path("apt-get") {
        bail!(
            "install these programs, by the names Debian gives their packages: {}",
            missing.join(" ")
        );
    }
    let may_install = policy == Policy::Install && is_root()?;
    if may_install {
        shell::run(apt::get(&["update"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    let plan = apt::plan(&missing)?;
    if !may_install {
        bail!(
            "as root, type these lines, then come again:\n{}",
            plan.lines().join("\n")
        );
    }
    apt::carry_out(&plan)?;
    match self::missing(&shell::on_path).as_slice() {
        [] => Ok(()),
        still => bail!(
            "installed, but their programs are not on the path: {}",
            still.join(" ")
        ),
    }
}

/// The packages of which a program is not `present`.
fn missing(present: &dyn Fn(&str) -> bool) -> Vec<&'static str> {
    let lacks = |package: &&Package| !package.programs.iter().all(|program| present(program));
    PACKAGES
        .iter()
        .filter(lacks)
        .map(|package| package.name)
        .collect()
}

fn is_root() -> Result<bool> {
    Ok(shell::capture(&mut shell::tool("id", &["-u"]))?.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn a_package_is_missing_if_one_of_its_programs_is() {
        let present = |program: &str| program != "nbdcopy" && program != "qemu-system-x86_64";
        assert_eq!(missing(&present), ["libnbd-bin", "qemu-system-x86"]);
        assert!(missing(&|_| true).is_empty());
    }
}
