//! QEMU's `key=value,…` syntax: dotted keys nest, numbers as keys make lists.
//!
//! ```text
//! driver=quorum,children.0=a,children.1.driver=file,children.1.filename=/a,,b
//! {"driver": "quorum", "children": ["a", {"driver": "file", "filename": "/a,b"}]}
//! ```
//!
//! A doubled comma stands for a comma in a value. When a key comes twice, the last one counts.

use crate::Error;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Parts of a dotted key, at most.
const MAX_PARTS: usize = 64;

/// What a word without `=` means, except for the first where there is an implied key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareWords {
    /// A mistake.
    Refused,
    /// `word` means `word=on`, `noword` means `word=off`.
    Switches,
}

/// Reads `text` into an object whose scalars are strings.
///
/// # Errors
///
/// A key is malformed, a value is missing, or keys contradict each other; the key is named.
pub fn parse(text: &str, implied: Option<&str>, bare: BareWords) -> Result<Value, Error> {
    let mut tree = Tree::default();
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let (word, after) = next_word(rest);
        rest = after;
        let (key, value) = match (word.split_once('='), implied, bare) {
            (Some((key, value)), _, _) => (key, value.to_owned()),
            (None, Some(implied), _) if first && !word.is_empty() => (implied, word.clone()),
            (None, _, BareWords::Refused) if word.is_empty() => ("", String::new()),
            (None, _, BareWords::Refused) => {
                return Err(Error::generic(format!(
                    "Expected '=' after parameter '{word}'"
                )));
            }
            (None, _, BareWords::Switches) => match word.strip_prefix("no") {
                Some(key) => (key, "off".to_owned()),
                None => (word.as_str(), "on".to_owned()),
            },
        };
        tree.insert(key, Value::String(value))?;
        first = false;
    }
    tree.into_object()
}

/// Reads words `key=value` into an object, a value being JSON if it can be, else a string.
///
/// # Errors
///
/// As [`parse`].
pub fn arguments<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Value, Error> {
    let mut tree = Tree::default();
    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| Error::generic(format!("Expected '=' after parameter '{word}'")))?;
        let value = crate::framing::parse(value).unwrap_or_else(|_| Value::from(value));
        tree.insert(key, value)?;
    }
    tree.into_object()
}

/// The text up to a single comma, doubled commas made single, and what follows that comma.
fn next_word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(',') {
        word.push_str(before);
        match after.strip_prefix(',') {
            Some(after) => {
                word.push(',');
                rest = after;
            }
            None => return (word, after),
        }
    }
    word.push_str(rest);
    (word, "")
}

/// Keys and values as they nest.
#[derive(Default)]
struct Tree(BTreeMap<String, Node>);

enum Node {
    Leaf(Value),
    Branch(Tree),
}

impl Tree {
    fn insert(&mut self, key: &str, value: Value) -> Result<(), Error> {
        let parts: Vec<&str> = key.split('.').take(MAX_PARTS + 1).collect();
        let valid = parts.len() <= MAX_PARTS && parts.iter().all(|part| is_part(part));
        let (last, parents) = match parts.split_last() {
            Some(split) if valid => split,
            _ => return Err(Error::generic(format!("Invalid parameter '{key}'"))),
        };
        let mut tree = self;
        for (depth, part) in parents.iter().enumerate() {
            let empty = || Node::Branch(Tree::default());
            tree = match tree.0.entry((*part).to_owned()).or_insert_with(empty) {
                Node::Branch(branch) => branch,
                Node::Leaf(_) => return Err(inconsistent(parts.get(..=depth).unwrap_or_default())),
            };
        }
        match tree.0.insert((*last).to_owned(), Node::Leaf(value)) {
            Some(Node::Branch(_)) => Err(inconsistent(&parts)),
            Some(Node::Leaf(_)) | None => Ok(()),
        }
    }

    fn into_object(self) -> Result<Value, Error> {
        let members = self.0.into_iter().map(|(key, node)| {
            let value = node.into_value(&key)?;
            Ok((key, value))
        });
        members
            .collect::<Result<Map<_, _>, Error>>()
            .map(Value::Object)
    }

    fn into_list(self, path: &str) -> Result<Value, Error> {
        let mut numbered: BTreeMap<usize, Node> = BTreeMap::new();
        for (key, node) in self.0 {
            let index = key.parse().map_err(|_| inconsistent(&[path]))?;
            numbered.insert(index, node);
        }
        let mut items = Vec::new();
        for (expected, (index, node)) in numbered.into_iter().enumerate() {
            if index != expected {
                return Err(Error::missing(&format!("{path}.{expected}")));
            }
            items.push(node.into_value(&format!("{path}.{index}"))?);
        }
        Ok(Value::Array(items))
    }
}

impl Node {
    fn into_value(self, path: &str) -> Result<Value, Error> {
        match self {
            Node::Leaf(value) => Ok(value),
            Node::Branch(tree) if tree.0.keys().any(|key| is_index(key)) => tree.into_list(path),
            Node::Branch(tree) => {
                let members = tree.0.into_iter().map(|(key, node)| {
                    let value = node.into_value(&format!("{path}.{key}"))?;
                    Ok((key, value))
                });
                members
                    .collect::<Result<Map<_, _>, Error>>()
                    .map(Value::Object)
            }
        }
    }
}

fn is_part(part: &str) -> bool {
    let named = part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let allowed = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
    is_index(part) || named && part.chars().all(allowed)
}

/// A number without leading zeroes.
fn is_index(part: &str) -> bool {
    part.parse::<usize>()
        .is_ok_and(|index| index.to_string() == part)
}

fn inconsistent(path: &[&str]) -> Error {
    Error::generic(format!(
        "Parameters '{}.*' used inconsistently",
        path.join(".")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parsed(text: &str) -> Result<Value, String> {
        parse(text, Some("driver"), BareWords::Refused).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_nest_and_commas_double() {
        for (text, value) in [
            ("", json!({})),
            ("file", json!({"driver": "file"})),
            ("file,a=", json!({"driver": "file", "a": ""})),
            ("file,a=1,", json!({"driver": "file", "a": "1"})),
            ("a=1,a=2", json!({"a": "2"})),
            ("a=b=c", json!({"a": "b=c"})),
            ("a=,,,b=,,", json!({"a": ",", "b": ","})),
            (
                "a.b.c=1,a.b.d=2,a.e=3",
                json!({"a": {"b": {"c": "1", "d": "2"}, "e": "3"}}),
            ),
            ("l.1=b,l.0=a", json!({"l": ["a", "b"]})),
            ("l.0.x=a,l.1.0=b", json!({"l": [{"x": "a"}, ["b"]]})),
        ] {
            assert_eq!(parsed(text), Ok(value), "{text}");
        }
        let eleven = (0..11)
            .map(|i| format!("l.{i}={i}"))
            .collect::<Vec<_>>()
            .join(",");
        let list: Vec<String> = (0..11).map(|i| i.to_string()).collect();
        assert_eq!(parsed(&eleven), Ok(json!({ "l": list })));
    }

    #[test]
    fn mistakes_name_the_key() {
        let deep = vec!["a"; MAX_PARTS + 1].join(".");
        for (text, error) in [
            ("file,a", "Expected '=' after parameter 'a'"),
            (",a=1", "Invalid parameter ''"),
            ("a=1,,b=2,c", "Expected '=' after parameter 'c'"),
            ("=1", "Invalid parameter ''"),
            (".=1", "Invalid parameter '.'"),
            ("a..b=1", "Invalid parameter 'a..b'"),
            ("a.=1", "Invalid parameter 'a.'"),
            ("a b=1", "Invalid parameter 'a b'"),
            ("-a=1", "Invalid parameter '-a'"),
            ("l.01=1", "Invalid parameter 'l.01'"),
            ("a=1,a.b=2", "Parameters 'a.*' used inconsistently"),
            ("a.b=1,a=2", "Parameters 'a.*' used inconsistently"),
            ("x.a=1,x.a.b=2", "Parameters 'x.a.*' used inconsistently"),
            ("l.0=1,l.a=2", "Parameters 'l.*' used inconsistently"),
            ("l.0=1,l.2=2", "Parameter 'l.1' is missing"),
            ("l.18446744073709551615=1", "Parameter 'l.0' is missing"),
            (
                "l.18446744073709551616=1",
                "Invalid parameter 'l.18446744073709551616'",
            ),
        ] {
            assert_eq!(parsed(text), Err(error.to_owned()), "{text}");
        }
        assert_eq!(
            parsed(&format!("{deep}=1")),
            Err(format!("Invalid parameter '{deep}'"))
        );
    }

    #[test]
    fn words_on_a_command_line_are_json_or_text() {
        let words = [
            "node-name=n",
            "size=7",
            "file.driver=file",
            "on=true",
            r#"list=[1,"a"]"#,
            "x=",
        ];
        assert_eq!(
            arguments(words).unwrap(),
            json!({
                "node-name": "n", "size": 7, "file": {"driver": "file"}, "on": true,
                "list": [1, "a"], "x": "",
            })
        );
        let error = arguments(["flat"]).unwrap_err();
        assert_eq!(error.to_string(), "Expected '=' after parameter 'flat'");
    }

    proptest! {
        #[test]
        fn any_value_survives_with_its_commas_doubled(value in ".*") {
            let text = format!("a.b={}", value.replace(',', ",,"));
            prop_assert_eq!(parsed(&text), Ok(json!({"a": {"b": value}})));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a-c0-2.,=]{0,30}") {
            let _ = parsed(&text);
        }
    }
}
