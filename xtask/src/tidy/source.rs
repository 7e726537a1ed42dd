//! A parsed Rust file, and which of its lines are tests.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Attribute, Item, Meta};

use crate::problem::Problem;
use crate::tree::{Text, Tree};

/// One Rust file of the project.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    pub(crate) syntax: syn::File,
    /// The whole file is tests: below a `tests` folder, or a module declared under `cfg(test)`.
    pub(crate) is_test: bool,
}

impl<'a> Source<'a> {
    /// Parses every Rust file of `tree`; what does not parse is a problem.
    pub(crate) fn parse_all(tree: &'a Tree, problems: &mut Vec<Problem>) -> Vec<Self> {
        let mut sources = Vec::new();
        for file in tree
            .texts()
            .filter(|file| file.path.strip_suffix(".rs").is_some())
        {
            match Self::parse(file) {
                Ok(source) => sources.push(source),
                Err(problem) => problems.push(problem),
            }
        }
        let test_modules: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut sources {
            source.is_test |= test_modules.iter().any(|module| {
                source
                    .path
                    .strip_prefix(module.as_str())
                    .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            });
        }
        sources
    }

    fn parse(file: &'a Text) -> Result<Self, Problem> {
        let syntax = syn::parse_file(&file.text).map_err(|error| {
            Problem::at(&file.path, error.span().start().line, error.to_string())
        })?;
        let is_test = file
            .path
            .split('/')
            .any(|part| matches!(part, "tests" | "tests.rs" | "benches"));
        Ok(Self {
            path: &file.path,
            text: &file.text,
            syntax,
            is_test,
        })
    }

    /// Where the modules live that this file declares for tests only, without `.rs`.
    fn test_modules(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(self.path);
        let folder = match stem.rsplit_once('/') {
            Some((folder, "lib" | "main" | "mod")) => folder,
            Some(_) | None => stem,
        };
        let declared = self.syntax.items.iter().filter_map(|item| match item {
            Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => Some(module),
            _ => None,
        });
        declared
            .map(|module| format!("{folder}/{}", module.ident))
            .collect()
    }

    /// Lines of the file that are not in a `cfg(test)` item.
    pub(crate) fn production_lines(&self) -> usize {
        let tests: usize = self
            .syntax
            .items
            .iter()
            .filter(|item| is_test(attributes(item)))
            .map(|item| lines(item.span()))
            .sum();
        self.text.lines().count() - tests
    }
}

/// True for `#[test]`, `#[cfg(test)]` and `#[cfg(any(test, ..))]`.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => list
            .tokens
            .to_string()
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| word == "test"),
        Meta::List(_) | Meta::NameValue(_) => false,
    })
}

/// How many lines something takes, its first and last included.
pub(crate) fn lines(span: Span) -> usize {
    span.end().line + 1 - span.start().line
}

/// The attributes of an item of the kinds that carry tests.
fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, Tree};

    #[test]
    fn a_module_declared_for_tests_is_a_test_with_all_below_it() {
        let tree = Tree::of(&[
            (
                "crates/a/src/lib.rs",
                "#[cfg(test)]\nmod script;\nmod scripted;\n",
            ),
            ("crates/a/src/script.rs", ""),
            ("crates/a/src/script/parse.rs", ""),
            ("crates/a/src/scripted.rs", ""),
            ("crates/a/tests/it.rs", ""),
        ]);
        let sources = Source::parse_all(&tree, &mut Vec::new());
        let tests: Vec<&str> = sources
            .iter()
            .filter(|s| s.is_test)
            .map(|s| s.path)
            .collect();
        assert_eq!(
            tests,
            [
                "crates/a/src/script.rs",
                "crates/a/src/script/parse.rs",
                "crates/a/tests/it.rs"
            ]
        );
    }

    #[test]
    fn lines_of_tests_do_not_count() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        let tree = Tree::of(&[("a.rs", text)]);
        let sources = Source::parse_all(&tree, &mut Vec::new());
        assert_eq!(sources[0].production_lines(), 2);
    }

    #[test]
    fn what_does_not_parse_is_a_problem_with_its_line() {
        let tree = Tree::of(&[("a.rs", "fn a() {}\nfn {\n")]);
        let mut problems = Vec::new();
        Source::parse_all(&tree, &mut problems);
        assert!(
            problems[0].to_string().starts_with("a.rs:2: "),
            "{problems:?}"
        );
    }
}
