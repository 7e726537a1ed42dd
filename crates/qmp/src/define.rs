//! The macros that declare a type of the wire: the Rust type and its [`Shape`](crate::shape::Shape)
//! from one text.
//!
//! ```text
//! words!  { enum Aio { "threads" => Threads, … } }              one of several words
//! object! { struct RawOptions { "file" => file: BlockdevRef, … } }  named members
//!         … { flat { common: BlockdevCommon, … } … }           members of another object
//! union!  { enum SocketAddress by "type" { "unix" => Unix(…), … } } members that depend on a tag
//! alternate! { enum BlockdevRef { Node(String), … } }          told apart by the JSON type
//! ```
//!
//! A member is optional when its type is an `Option`.

/// Declares an enum that is one word on the wire.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$word_meta:meta])* $word:literal => $variant:ident,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$word_meta])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::shape::Describe for $name {
            fn shape() -> &'static $crate::shape::Shape {
                &$crate::shape::Shape::Enum { name: stringify!($name), words: &[$($word),*] }
            }
        }
    };
}

/// Declares a struct that is an object on the wire.
macro_rules! object {
    ($(#[$meta:meta])* pub struct $name:ident {
        $(flat { $($(#[$flat_meta:meta])* $flat:ident: $flat_type:ty,)* })?
        $($(#[$member_meta:meta])* $wire:literal => $member:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($($(#[$flat_meta])* #[serde(flatten)] pub $flat: $flat_type,)*)?
            $(
                $(#[$member_meta])*
                #[serde(rename = $wire, skip_serializing_if = "crate::shape::Describe::is_absent")]
                pub $member: $type,
            )*
        }

        impl $crate::shape::Describe for $name {
            fn shape() -> &'static $crate::shape::Shape {
                const {
                    &$crate::shape::Shape::Object {
                        name: stringify!($name),
                        parts: &[
                            $($($crate::shape::Part::Flat(
                                <$flat_type as $crate::shape::Describe>::shape,
                            ),)*)?
                            $($crate::shape::Part::Member(
                                $crate::shape::Member::new::<$type>($wire),
                            ),)*
                        ],
                        tag: None,
                    }
                }
            }
        }
    };
}

/// Declares an enum that is an object on the wire whose members depend on one of them, the tag.
macro_rules! union {
    ($(#[$meta:meta])* pub enum $name:ident by $tag:literal as $words:literal {
        $($(#[$variant_meta:meta])* $word:literal => $variant:ident($type:ty),)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = $tag)]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant($type),)*
        }

        impl $name {
            /// The value of the tag.
            pub fn word(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $word,)*
                }
            }
        }

        impl $crate::shape::Describe for $name {
            fn shape() -> &'static $crate::shape::Shape {
                fn words() -> &'static $crate::shape::Shape {
                    &$crate::shape::Shape::Enum { name: $words, words: &[$($word),*] }
                }
                const {
                    &$crate::shape::Shape::Object {
                        name: stringify!($name),
                        parts: &[],
                        tag: Some($crate::shape::Tag {
                            member: $tag,
                            words,
                            variants: &[$($crate::shape::Variant {
                                word: $word,
                                shape: <$type as $crate::shape::Describe>::shape,
                            },)*],
                        }),
                    }
                }
            }
        }
    };
}

/// Declares an enum whose variants have different JSON types.
macro_rules! alternate {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident($type:ty),)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(untagged)]
        pub enum $name {
            $($(#[$variant_meta])* $variant($type),)*
        }

        impl $crate::shape::Describe for $name {
            fn shape() -> &'static $crate::shape::Shape {
                const {
                    &$crate::shape::Shape::Alternate {
                        name: stringify!($name),
                        branches: &[$(<$type as $crate::shape::Describe>::shape),*],
                    }
                }
            }
        }
    };
}

pub(crate) use {alternate, object, union, words};
