//! Only `drivers::os` names the operating system.
//!
//! Everything else below `crates/` reaches files, sockets and the runtime through the ports, so
//! that the same graph runs in `sim`. The binary is free: it is where the outside begins.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{ItemFn, ItemMod, ItemUse, Macro, Path, UseTree};

use super::source::{Source, is_test};
use crate::problem::Problem;

/// What only `drivers::os` may name: a path is one of these, or goes on from one.
const NAMES: &[&str] = &[
    "tokio",
    "io_uring",
    "std::fs",
    "std::net",
    "std::os::unix::net",
];

/// Checks one file.
pub(crate) fn check(source: &Source<'_>) -> Vec<Problem> {
    if source.is_test || is_free(source.path) {
        return Vec::new();
    }
    let mut walk = Walk::default();
    walk.visit_file(&source.syntax);
    let what = |name: &str| format!("names `{name}`, which only `drivers::os` may");
    walk.found
        .into_iter()
        .map(|(line, name)| Problem::at(source.path, line, what(&name)))
        .collect()
}

fn is_free(path: &str) -> bool {
    let Some(path) = path.strip_prefix("crates/") else {
        return true;
    };
    path.starts_with("afterimage/")
        || path.starts_with("drivers/src/os/")
        || path == "drivers/src/os.rs"
}

#[derive(Default)]
struct Walk {
    found: Vec<(usize, String)>,
}

impl Walk {
    fn name(&mut self, line: usize, path: &[String]) {
        let path = path.join("::");
        let is_it = |name: &&&str| {
            path.strip_prefix(**name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if let Some(name) = NAMES.iter().find(is_it) {
            self.found.push((line, (*name).to_owned()));
        }
    }

    fn use_tree(&mut self, line: usize, before: &mut Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.use_tree(line, before, &path.tree);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(line, before, tree);
                }
            }
            UseTree::Name(name) => self.leaf(line, before, name.ident.to_string()),
            UseTree::Rename(rename) => self.leaf(line, before, rename.ident.to_string()),
            UseTree::Glob(_) => self.name(line, before),
        }
    }

    fn leaf(&mut self, line: usize, before: &[String], last: String) {
        let mut path = before.to_vec();
        path.push(last);
        path.retain(|part| part != "self");
        self.name(line, &path);
    }
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_test(&item.attrs) {
            self.use_tree(
                item.use_token.span.start().line,
                &mut Vec::new(),
                &item.tree,
            );
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        if parts.len() > 1 {
            self.name(path.span().start().line, &parts);
        }
        visit::visit_path(self, path);
    }

    /// What stands inside a macro call is not parsed; its text is enough for a name.
    fn visit_macro(&mut self, call: &'ast Macro) {
        let text: String = call.tokens.to_string().split_whitespace().collect();
        let names = NAMES
            .iter()
            .filter(|name| text.contains(&format!("{name}::")));
        let line = call.span().start().line;
        self.found
            .extend(names.map(|name| (line, (*name).to_owned())));
        visit::visit_macro(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, check};
    use crate::tree::Tree;

    fn said(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::of(&[(path, text)]);
        let sources = Source::parse_all(&tree, &mut Vec::new());
        sources
            .iter()
            .flat_map(check)
            .map(|problem| problem.to_string())
            .collect()
    }

    #[test]
    fn every_way_to_name_the_system_is_reported() {
        let path = "crates/engine/src/jobs.rs";
        for (text, name) in [
            ("use tokio::task::LocalSet;", "tokio"),
            ("use tokio;", "tokio"),
            ("use std::{fmt, fs};", "std::fs"),
            ("use std::fs::{self, File};", "std::fs"),
            (
                "use std::os::unix::net::UnixStream as Stream;",
                "std::os::unix::net",
            ),
            ("fn a() -> std::net::IpAddr { b() }", "std::net"),
            ("fn a() { tokio::pin!(x); }", "tokio"),
            ("fn a() { assert!(std::fs::exists(x)); }", "std::fs"),
        ] {
            let expected = format!("{path}:1: names `{name}`, which only `drivers::os` may");
            assert_eq!(said(path, text).first(), Some(&expected), "{text}");
        }
    }

    #[test]
    fn ports_tests_and_the_binary_are_free() {
        let text = "use std::fs;";
        assert_eq!(said("crates/drivers/src/os/file.rs", text), [""; 0]);
        assert_eq!(said("crates/afterimage/src/main.rs", text), [""; 0]);
        assert_eq!(said("crates/engine/tests/it.rs", text), [""; 0]);
        assert_eq!(said("xtask/src/main.rs", text), [""; 0]);
        let tests = "#[cfg(test)]\nmod tests { use std::fs; }";
        assert_eq!(said("crates/engine/src/jobs.rs", tests), [""; 0]);
    }

    #[test]
    fn a_name_that_only_begins_alike_is_no_problem() {
        assert_eq!(
            said(
                "crates/drivers/src/raw.rs",
                "use std::fsync;\nuse tokio_like::x;"
            ),
            [""; 0]
        );
    }
}
