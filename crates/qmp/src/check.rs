//! Holds a JSON value against a shape: the one place where arguments and flags are refused.
//!
//! What passes here deserialises into the Rust type declared together with the shape. Checks run
//! in the order of the declaration, unexpected members last, as QEMU does; the message names the
//! parameter by its full path.

use crate::Error;
use crate::shape::{Describe, Members, Scalar, Shape, Tag};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fmt;

/// How scalars are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As JSON values.
    Json,
    /// As strings, because they come from `key=value` flags.
    Flags,
}

/// Turns `value` into a `T`.
///
/// # Errors
///
/// A parameter is missing, unexpected, of the wrong type or without meaning.
pub(crate) fn decode<T>(value: Value, dialect: Dialect) -> Result<T, Error>
where
    T: Describe + DeserializeOwned,
{
    let checked = Checker { dialect }.value(value, T::shape(), &Path::ROOT)?;
    serde_json::from_value(checked).map_err(|error| Error::generic(error.to_string()))
}

/// Where in the arguments a value stands: a list from the leaf to the root, on the stack.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: PathStep<'a>,
}

#[derive(Clone, Copy)]
enum PathStep<'a> {
    Root,
    Member(&'a str),
    Index(usize, Dialect),
}

impl<'a> Path<'a> {
    const ROOT: Path<'static> = Path {
        parent: None,
        step: PathStep::Root,
    };

    fn to(&'a self, step: PathStep<'a>) -> Self {
        Self {
            parent: Some(self),
            step,
        }
    }

    fn member(&'a self, name: &'a str) -> Self {
        self.to(PathStep::Member(name))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        parent.fmt(f)?;
        let first = parent.parent.is_none();
        match self.step {
            PathStep::Root => Ok(()),
            PathStep::Member(name) if first => f.write_str(name),
            PathStep::Member(name) => write!(f, ".{name}"),
            PathStep::Index(index, Dialect::Json) => write!(f, "[{index}]"),
            PathStep::Index(index, Dialect::Flags) if first => write!(f, "{index}"),
            PathStep::Index(index, Dialect::Flags) => write!(f, ".{index}"),
        }
    }
}

struct Checker {
    dialect: Dialect,
}

impl Checker {
    fn value(&self, value: Value, shape: &'static Shape, at: &Path<'_>) -> Result<Value, Error> {
        match (shape, value) {
            (Shape::Scalar(scalar), value) => self.scalar(value, *scalar, at),
            (Shape::Enum { words, .. }, Value::String(word)) => {
                if words.contains(&word.as_str()) {
                    return Ok(Value::String(word));
                }
                Err(Error::invalid_value(&at.to_string(), &word))
            }
            (Shape::Array(element), Value::Array(items)) => self.array(items, element(), at),
            (Shape::Object { parts, tag, .. }, Value::Object(members)) => {
                self.object(members, &Members::of(parts, *tag), at)
            }
            (Shape::Alternate { name, branches }, value) => {
                let mut shapes = branches.iter().map(|branch| branch());
                match shapes.find(|shape| same_json_type(&value, shape)) {
                    Some(shape) => self.value(value, shape, at),
                    None => Err(Error::invalid_type(&at.to_string(), name)),
                }
            }
            (Shape::Enum { .. }, _) => Err(Error::invalid_type(&at.to_string(), "string")),
            (Shape::Array(_), _) => Err(Error::invalid_type(&at.to_string(), "array")),
            (Shape::Object { .. }, _) => Err(Error::invalid_type(&at.to_string(), "object")),
        }
    }

    fn array(
        &self,
        items: Vec<Value>,
        shape: &'static Shape,
        at: &Path<'_>,
    ) -> Result<Value, Error> {
        let items = items.into_iter().enumerate();
        let items = items.map(|(index, item)| {
            self.value(item, shape, &at.to(PathStep::Index(index, self.dialect)))
        });
        items.collect::<Result<_, _>>().map(Value::Array)
    }

    fn object(
        &self,
        mut given: Map<String, Value>,
        wanted: &Members,
        at: &Path<'_>,
    ) -> Result<Value, Error> {
        let mut checked = Map::new();
        self.members(&mut given, &mut checked, wanted, at)?;
        match given.keys().next() {
            Some(name) => Err(Error::unexpected(&at.member(name).to_string())),
            None => Ok(Value::Object(checked)),
        }
    }

    /// Moves the wanted members from `given` to `checked`.
    fn members(
        &self,
        given: &mut Map<String, Value>,
        checked: &mut Map<String, Value>,
        wanted: &Members,
        at: &Path<'_>,
    ) -> Result<(), Error> {
        if let Some(tag) = &wanted.tag {
            self.variant(given, checked, tag, at)?;
        }
        for member in &wanted.members {
            let at = at.member(member.name);
            match given.remove(member.name) {
                Some(value) => {
                    let value = self.value(value, (member.shape)(), &at)?;
                    checked.insert(member.name.to_owned(), value);
                }
                None if member.optional => {}
                None => return Err(Error::missing(&at.to_string())),
            }
        }
        Ok(())
    }

    fn variant(
        &self,
        given: &mut Map<String, Value>,
        checked: &mut Map<String, Value>,
        tag: &Tag,
        at: &Path<'_>,
    ) -> Result<(), Error> {
        let tag_at = at.member(tag.member);
        let word = given
            .remove(tag.member)
            .ok_or_else(|| Error::missing(&tag_at.to_string()))?;
        let word = self.value(word, (tag.words)(), &tag_at)?;
        let variant = tag.variants.iter().find(|variant| word == variant.word);
        checked.insert(tag.member.to_owned(), word);
        match variant.map(|variant| (variant.shape)()) {
            Some(Shape::Object { parts, tag, .. }) => {
                self.members(given, checked, &Members::of(parts, *tag), at)
            }
            _ => Ok(()),
        }
    }

    fn scalar(&self, value: Value, scalar: Scalar, at: &Path<'_>) -> Result<Value, Error> {
        match (self.dialect, value) {
            (Dialect::Flags, Value::String(text)) => from_text(text, scalar, at),
            (_, value) => from_json(value, scalar, at),
        }
    }
}

fn same_json_type(value: &Value, shape: &Shape) -> bool {
    matches!(
        (value, shape),
        (
            Value::String(_),
            Shape::Scalar(Scalar::Text) | Shape::Enum { .. }
        ) | (Value::Object(_), Shape::Object { .. })
            | (Value::Array(_), Shape::Array(_))
            | (Value::Bool(_), Shape::Scalar(Scalar::Bool))
            | (Value::Null, Shape::Scalar(Scalar::Null))
    )
}

fn from_json(value: Value, scalar: Scalar, at: &Path<'_>) -> Result<Value, Error> {
    let expected = match (scalar, &value) {
        (Scalar::Any, _) => return Ok(value),
        (Scalar::Text, Value::String(_)) => return Ok(value),
        (Scalar::Bool, Value::Bool(_)) => return Ok(value),
        (Scalar::Int | Scalar::Uint { .. } | Scalar::Size, Value::Number(number)) => {
            if number.is_i64() || number.is_u64() {
                return in_range(value, scalar, at);
            }
            "integer"
        }
        (Scalar::Null, Value::Null) => return Ok(value),
        (Scalar::Null, _) => "null",
        (Scalar::Text, _) => "string",
        (Scalar::Bool, _) => "boolean",
        (Scalar::Int | Scalar::Uint { .. } | Scalar::Size, _) => "integer",
    };
    Err(Error::invalid_type(&at.to_string(), expected))
}

fn from_text(text: String, scalar: Scalar, at: &Path<'_>) -> Result<Value, Error> {
    let refuse = |what| Err(Error::expects(&at.to_string(), what));
    match scalar {
        Scalar::Text | Scalar::Any => Ok(Value::String(text)),
        Scalar::Bool => match text.as_str() {
            "on" | "yes" | "true" | "y" => Ok(Value::Bool(true)),
            "off" | "no" | "false" | "n" => Ok(Value::Bool(false)),
            _ => refuse("'on' or 'off'"),
        },
        Scalar::Null => refuse("null"),
        Scalar::Int => match text.parse::<i64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => refuse("integer"),
        },
        Scalar::Uint { .. } => match crate::size::parse_integer(&text) {
            Some(number) => in_range(number.into(), scalar, at),
            None => refuse("integer"),
        },
        Scalar::Size => match crate::size::parse_size(&text) {
            Some(bytes) => in_range(bytes.into(), scalar, at),
            None => refuse("a size: a number of bytes, or one with k, M, G, T, P or E after it"),
        },
    }
}

fn in_range(value: Value, scalar: Scalar, at: &Path<'_>) -> Result<Value, Error> {
    let (fits, what) = match scalar {
        Scalar::Int => (value.is_i64(), "int64"),
        Scalar::Uint { max } => {
            let fits = value.as_u64().is_some_and(|number| number <= max);
            let what = match max {
                0xFF => "uint8_t",
                0xFFFF => "uint16_t",
                0xFFFF_FFFF => "uint32_t",
                _ => "uint64",
            };
            (fits, what)
        }
        // File offsets are signed in every interface below this one.
        Scalar::Size => (
            value
                .as_u64()
                .is_some_and(|bytes| i64::try_from(bytes).is_ok()),
            "a size of less than 8 EiB",
        ),
        Scalar::Text | Scalar::Bool | Scalar::Null | Scalar::Any => (true, ""),
    };
    if fits {
        Ok(value)
    } else {
        Err(Error::expects(&at.to_string(), what))
    }
}
