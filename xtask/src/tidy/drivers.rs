//! Files in `crates/drivers/src` = registered drivers = pages of the reference.
//!
//! A driver is registered by its name in the array [`REGISTRY`] of the crate; its file or folder
//! has the same name with `_` for `-`, its page is `docs/reference/drivers/NAME.md`. What else
//! stands in the folder is listed here, so that a new file is either of the two knowingly.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use syn::{Item, LitStr};

use super::source::Source;
use crate::problem::Problem;
use crate::tree::Tree;

const FOLDER: &str = "crates/drivers/src/";
const PAGES: &str = "docs/reference/drivers/";

/// The constant or static whose string literals are the names of all drivers.
const REGISTRY: &str = "DRIVERS";

/// Modules of the crate that are no drivers.
const SUPPORT: &[&str] = &[
    "lib", "error", "event", "options", "os", "ports", "registry", "testing", "tests",
];

/// Checks that the three agree. Until there is a registry there is nothing to agree with.
pub(crate) fn check(tree: &Tree, sources: &[Source<'_>]) -> Vec<Problem> {
    let Some(drivers) = registered(sources) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let modules: BTreeSet<String> = tree.below(FOLDER).map(module).collect();
    let pages: BTreeSet<String> = tree
        .below(PAGES)
        .filter_map(|page| page.strip_suffix(".md"))
        .map(str::to_owned)
        .collect();
    for driver in &drivers {
        if !modules.contains(&driver.replace('-', "_")) {
            problems.push(Problem::new(
                FOLDER,
                format!("no file or folder for the driver `{driver}`"),
            ));
        }
        if !pages.contains(driver) {
            problems.push(Problem::new(
                PAGES,
                format!("no page for the driver `{driver}`"),
            ));
        }
    }
    for module in modules {
        let is_driver = drivers
            .iter()
            .any(|driver| driver.replace('-', "_") == module);
        if !is_driver && !SUPPORT.contains(&module.as_str()) {
            problems.push(Problem::new(
                FOLDER,
                format!("`{module}` is no registered driver"),
            ));
        }
    }
    for page in pages
        .iter()
        .filter(|page| *page != "README" && !drivers.contains(*page))
    {
        problems.push(Problem::new(
            PAGES,
            format!("`{page}` is no registered driver"),
        ));
    }
    problems
}

/// `raw` of `raw.rs` and of `raw/header.rs`.
fn module(path: &str) -> String {
    let first = path.split('/').next().unwrap_or(path);
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

/// The names in the registry; none if there is no registry yet.
fn registered(sources: &[Source<'_>]) -> Option<BTreeSet<String>> {
    let items = sources
        .iter()
        .filter(|source| source.path.starts_with(FOLDER))
        .flat_map(|source| &source.syntax.items);
    let mut names = Names::default();
    for item in items {
        match item {
            Item::Const(item) if item.ident == REGISTRY => names.visit_expr(&item.expr),
            Item::Static(item) if item.ident == REGISTRY => names.visit_expr(&item.expr),
            _ => continue,
        }
        names.found = true;
    }
    names.found.then_some(names.literals)
}

#[derive(Default)]
struct Names {
    found: bool,
    literals: BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Names {
    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        self.literals.insert(literal.value());
        visit::visit_lit_str(self, literal);
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, Tree, check};

    fn said(files: &[(&str, &str)]) -> Vec<String> {
        let tree = Tree::of(files);
        let sources = Source::parse_all(&tree, &mut Vec::new());
        check(&tree, &sources)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn without_a_registry_nothing_is_asked() {
        assert_eq!(said(&[("crates/drivers/src/raw.rs", "")]), [""; 0]);
    }

    #[test]
    fn files_registry_and_pages_must_agree() {
        let registry =
            r#"pub const DRIVERS: &[(&str, Open)] = &[("null-co", null_co), ("raw", raw)];"#;
        assert_eq!(
            said(&[
                ("crates/drivers/src/registry.rs", registry),
                ("crates/drivers/src/null_co.rs", ""),
                ("crates/drivers/src/qcow2/header.rs", ""),
                ("docs/reference/drivers/null-co.md", ""),
                ("docs/reference/drivers/vmdk.md", ""),
            ]),
            [
                "crates/drivers/src/: no file or folder for the driver `raw`",
                "docs/reference/drivers/: no page for the driver `raw`",
                "crates/drivers/src/: `qcow2` is no registered driver",
                "docs/reference/drivers/: `vmdk` is no registered driver",
            ]
        );
    }
}
