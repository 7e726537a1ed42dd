//! `cargo xtask deny`: licences, duplicates and sources of dependencies, by cargo-deny.
//!
//! The rules are in `deny.toml`. The version is pinned, because rules and their defaults change
//! between versions; where it is absent it is built below `target/tools`, once, without
//! optimisation, which takes under a minute.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell;

const VERSION: &str = "0.20.2";

/// Checks the dependencies; installs cargo-deny first where it is absent.
pub(crate) fn run() -> Result<()> {
    let folder = shell::target()?
        .join("tools")
        .join(format!("cargo-deny-{VERSION}"));
    let program = folder.join("bin/cargo-deny");
    if !program.exists() {
        install(&folder)?;
    }
    let mut check = shell::tool(
        &program.to_string_lossy(),
        &["check", "bans", "licenses", "sources"],
    );
    shell::run(&mut check)
}

fn install(folder: &PathBuf) -> Result<()> {
    let package = format!("cargo-deny@{VERSION}");
    let mut install = shell::cargo(&["install", "--locked", "--debug", "--quiet"]);
    install
        .args(["--config", "profile.dev.debug=false", "--root"])
        .arg(folder)
        .arg(package);
    // Cargo then builds in a folder that it removes again.
    shell::run(install.env_remove("CARGO_TARGET_DIR"))
}
