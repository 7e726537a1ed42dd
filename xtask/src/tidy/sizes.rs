//! Sizes, headers and imports of Rust files.
//!
//! | what | at most |
//! |---|---|
//! | a function, signature and braces included | 70 lines, nine in ten 35 |
//! | a file without its tests | 700 lines; above 400 it is listed |
//! | an `impl` block | 300 lines |
//! | a struct | 12 fields |
//!
//! Tests are free of these: clippy still bounds their functions. The number of arguments is
//! clippy's too.

use std::fmt;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Block, ImplItemFn, ItemFn, ItemImpl, ItemMod, ItemStruct, ItemUse, Signature, TraitItemFn,
    UseTree,
};

use super::source::{Source, is_test, lines};
use crate::problem::Problem;

const FUNCTION_LINES: usize = 70;
const MOST_FUNCTIONS_LINES: usize = 35;
const FILE_LINES: usize = 700;
const MOST_FILES_LINES: usize = 400;
const IMPL_LINES: usize = 300;
const STRUCT_FIELDS: usize = 12;

/// Checks one file.
pub(crate) fn check(source: &Source<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !source.text.starts_with("//!") {
        problems.push(Problem::at(
            source.path,
            1,
            "begins without a `//!` header that says what it is for",
        ));
    }
    if source.is_test {
        return problems;
    }
    let length = source.production_lines();
    if length > FILE_LINES {
        let what = format!("has {length} lines without its tests; at most {FILE_LINES}");
        problems.push(Problem::new(source.path, what));
    }
    let mut walk = Walk::default();
    walk.visit_file(&source.syntax);
    problems.extend(
        walk.problems
            .into_iter()
            .map(|(line, what)| Problem::at(source.path, line, what)),
    );
    problems
}

/// Walks over all that is not a test.
#[derive(Default)]
struct Walk {
    problems: Vec<(usize, String)>,
    function_lines: Vec<usize>,
}

impl Walk {
    fn function(&mut self, signature: &Signature, block: &Block) {
        let first = signature.span().start().line;
        let length = block.span().end().line + 1 - first;
        self.function_lines.push(length);
        if length > FUNCTION_LINES {
            let name = &signature.ident;
            self.problems.push((
                first,
                format!("function `{name}` has {length} lines; at most {FUNCTION_LINES}"),
            ));
        }
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
            self.function(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if is_test(&item.attrs) {
            return;
        }
        let length = lines(item.span());
        if length > IMPL_LINES {
            let first = item.impl_token.span.start().line;
            self.problems.push((
                first,
                format!("`impl` block has {length} lines; at most {IMPL_LINES}"),
            ));
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        let fields = item.fields.len();
        if fields > STRUCT_FIELDS && !is_test(&item.attrs) {
            let first = item.struct_token.span.start().line;
            let name = &item.ident;
            self.problems.push((
                first,
                format!("struct `{name}` has {fields} fields; at most {STRUCT_FIELDS}"),
            ));
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if takes_all_of_parent(&item.tree) && !is_test(&item.attrs) {
            let first = item.use_token.span.start().line;
            self.problems.push((
                first,
                "takes everything from its parent; name what is used".to_owned(),
            ));
        }
    }
}

/// True for `super::*`, and for `super::super::*`.
fn takes_all_of_parent(tree: &UseTree) -> bool {
    match tree {
        UseTree::Path(path) if path.ident == "super" => match &*path.tree {
            UseTree::Glob(_) => true,
            UseTree::Group(group) => group
                .items
                .iter()
                .any(|tree| matches!(tree, UseTree::Glob(_))),
            deeper => takes_all_of_parent(deeper),
        },
        _ => false,
    }
}

/// How long the functions and files of the project are.
pub(crate) struct Summary {
    functions: usize,
    short: usize,
    longest: usize,
    long_files: Vec<(String, usize)>,
}

impl Summary {
    /// Measures all that is not a test.
    pub(crate) fn of(sources: &[Source<'_>]) -> Self {
        let mut walk = Walk::default();
        let mut long_files = Vec::new();
        for source in sources.iter().filter(|source| !source.is_test) {
            walk.visit_file(&source.syntax);
            let length = source.production_lines();
            if length > MOST_FILES_LINES {
                long_files.push((source.path.to_owned(), length));
            }
        }
        Self {
            functions: walk.function_lines.len(),
            short: walk
                .function_lines
                .iter()
                .filter(|length| **length <= MOST_FUNCTIONS_LINES)
                .count(),
            longest: walk
                .function_lines
                .iter()
                .copied()
                .max()
                .unwrap_or_default(),
            long_files,
        }
    }

    /// A problem if fewer than nine functions in ten are short.
    pub(crate) fn check(&self) -> Option<Problem> {
        let too_few = self.short * 10 < self.functions * 9;
        let what = format!(
            "{} of {} functions have at most {MOST_FUNCTIONS_LINES} lines; at least nine in ten must",
            self.short, self.functions
        );
        too_few.then(|| Problem::new("workspace", what))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            functions,
            short,
            longest,
            long_files,
        } = self;
        writeln!(
            f,
            "{functions} functions, {short} of at most {MOST_FUNCTIONS_LINES} lines, the longest of {longest}"
        )?;
        for (path, length) in long_files {
            writeln!(f, "long file: {path}, {length} lines without its tests")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Problem, Source, Summary, check};
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

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    work();\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_without_a_header_is_reported_tests_too() {
        let expected = "begins without a `//!` header that says what it is for";
        assert_eq!(said("a.rs", "fn a() {}\n"), [format!("a.rs:1: {expected}")]);
        assert_eq!(
            said("tests/a.rs", "fn a() {}\n"),
            [format!("tests/a.rs:1: {expected}")]
        );
        assert!(said("a.rs", "//! Adds.\n").is_empty());
    }

    #[test]
    fn a_function_of_71_lines_is_reported_and_one_of_70_is_not() {
        let text = format!(
            "//! Two.\n{}{}",
            function("fits", 70),
            function("sprawls", 71)
        );
        assert_eq!(
            said("a.rs", &text),
            ["a.rs:72: function `sprawls` has 71 lines; at most 70"]
        );
    }

    #[test]
    fn tests_may_be_long() {
        let text = format!(
            "//! T.\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            function("long", 800)
        );
        assert!(said("a.rs", &text).is_empty());
    }

    #[test]
    fn a_file_of_more_than_700_lines_is_reported() {
        let text = format!("//! Long.\n{}", "fn a() {}\n".repeat(700));
        assert_eq!(
            said("a.rs", &text),
            ["a.rs: has 701 lines without its tests; at most 700"]
        );
    }

    #[test]
    fn a_struct_of_13_fields_and_an_impl_of_301_lines_are_reported() {
        let fields: Vec<String> = (0..13).map(|n| format!("f{n}: u8")).collect();
        let text = format!("//! S.\nstruct S {{ {} }}\n", fields.join(", "));
        assert_eq!(
            said("a.rs", &text),
            ["a.rs:2: struct `S` has 13 fields; at most 12"]
        );
        let text = format!("//! I.\nimpl S {{\n{}}}\n", "    fn a() {}\n".repeat(299));
        assert_eq!(
            said("a.rs", &text),
            ["a.rs:2: `impl` block has 301 lines; at most 300"]
        );
    }

    #[test]
    fn taking_everything_from_the_parent_is_for_tests() {
        let expected = "takes everything from its parent; name what is used";
        for tree in ["super::*", "super::super::*", "super::{self, *}"] {
            let text = format!("//! U.\nuse {tree};\n");
            assert_eq!(
                said("a.rs", &text),
                [format!("a.rs:2: {expected}")],
                "{tree}"
            );
        }
        assert!(
            said(
                "a.rs",
                "//! U.\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn nine_functions_in_ten_must_be_short() {
        let summary = |long: usize| {
            let text = function("a", 5).repeat(10 - long) + &function("b", 36).repeat(long);
            let tree = Tree::of(&[("a.rs", &text)]);
            Summary::of(&Source::parse_all(&tree, &mut Vec::new())).check()
        };
        assert_eq!(summary(1), None);
        let what = "8 of 10 functions have at most 35 lines; at least nine in ten must";
        assert_eq!(summary(2), Some(Problem::new("workspace", what)));
    }
}
