//! The shapes of arguments, returns and event data, as data.
//!
//! Every type that crosses the wire is declared once, with the macros of `define`; the declaration
//! makes the Rust type and its [`Shape`] together. From the shape follow the checks of what arrives
//! (`check`) and `query-qmp-schema` (`schema`), so that the three cannot tell different stories.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a type looks like on the wire.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A scalar.
    Scalar(Scalar),
    /// A list of values of one shape.
    Array(ShapeOf),
    /// One of several words.
    Enum {
        name: &'static str,
        words: &'static [&'static str],
    },
    /// Named members, and more members that depend on the value of one of them.
    Object {
        name: &'static str,
        parts: &'static [Part],
        tag: Option<Tag>,
    },
    /// Shapes told apart by the JSON type alone.
    Alternate {
        name: &'static str,
        branches: &'static [ShapeOf],
    },
}

/// Shapes refer to each other by function, because they may refer to themselves.
pub(crate) type ShapeOf = fn() -> &'static Shape;

/// The scalars of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    /// Text.
    Text,
    /// True or false; in flags `on` or `off`.
    Bool,
    /// A signed integer.
    Int,
    /// An unsigned integer up to a limit.
    Uint { max: u64 },
    /// A number of bytes: an unsigned integer, in flags with a suffix if wanted.
    Size,
    /// `null`.
    Null,
    /// Anything.
    Any,
}

/// Members of an object: one of its own, or those of another object.
#[derive(Debug)]
pub(crate) enum Part {
    Member(Member),
    Flat(ShapeOf),
}

/// One member of an object.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) shape: ShapeOf,
    pub(crate) optional: bool,
}

/// The member that decides which further members an object has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) member: &'static str,
    pub(crate) words: ShapeOf,
    pub(crate) variants: &'static [Variant],
}

/// The further members for one value of the tag.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) word: &'static str,
    pub(crate) shape: ShapeOf,
}

/// A type of the wire.
pub(crate) trait Describe {
    /// Whether a member of this type may be left out.
    const OPTIONAL: bool = false;

    /// The shape of the values.
    fn shape() -> &'static Shape;

    /// Whether a member with this value is left out when written.
    fn is_absent(&self) -> bool {
        false
    }
}

impl Member {
    pub(crate) const fn new<T: Describe>(name: &'static str) -> Self {
        Self {
            name,
            shape: T::shape,
            optional: T::OPTIONAL,
        }
    }
}

/// All members of an object, those of its flat parts included, and its tag.
pub(crate) struct Members {
    pub(crate) members: Vec<&'static Member>,
    pub(crate) tag: Option<Tag>,
}

impl Members {
    pub(crate) fn of(parts: &'static [Part], tag: Option<Tag>) -> Self {
        let mut all = Self {
            members: Vec::new(),
            tag,
        };
        for part in parts {
            match part {
                Part::Member(member) => all.members.push(member),
                Part::Flat(shape) => all.flatten(shape()),
            }
        }
        all
    }

    fn flatten(&mut self, shape: &'static Shape) {
        let Shape::Object { parts, tag, .. } = shape else {
            unreachable!("only objects are flattened, which a test of the schema visits");
        };
        let inner = Self::of(parts, *tag);
        self.members.extend(inner.members);
        self.tag = self.tag.or(inner.tag);
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub u64);

macro_rules! scalars {
    ($($type:ty => $scalar:expr;)*) => {$(
        impl Describe for $type {
            fn shape() -> &'static Shape {
                &Shape::Scalar($scalar)
            }
        }
    )*};
}

scalars! {
    String => Scalar::Text;
    bool => Scalar::Bool;
    i64 => Scalar::Int;
    u8 => Scalar::Uint { max: 0xFF };
    u16 => Scalar::Uint { max: 0xFFFF };
    u32 => Scalar::Uint { max: 0xFFFF_FFFF };
    u64 => Scalar::Uint { max: u64::MAX };
    Size => Scalar::Size;
    () => Scalar::Null;
    Value => Scalar::Any;
}

impl<T: Describe> Describe for Option<T> {
    const OPTIONAL: bool = true;

    fn shape() -> &'static Shape {
        T::shape()
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Describe> Describe for Box<T> {
    fn shape() -> &'static Shape {
        T::shape()
    }
}

impl<T: Describe> Describe for Vec<T> {
    fn shape() -> &'static Shape {
        const { &Shape::Array(T::shape) }
    }
}
