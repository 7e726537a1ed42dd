//! `query-qmp-schema`: all commands, events and types, derived from the tables.
//!
//! As QEMU does it, types that are no builtins have numbers for names: their names are no
//! promise.

use crate::command::{self, CommandSpec};
use crate::event::{EVENTS, EventSpec};
use crate::shape::{Member, Members, Part, Scalar, Shape, Tag};
use crate::types::{
    SchemaAlternate, SchemaAlternateMember, SchemaArray, SchemaBuiltin, SchemaCommand, SchemaEnum,
    SchemaEnumMember, SchemaEvent, SchemaInfo, SchemaKind, SchemaMember, SchemaObject,
    SchemaVariant,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// All entities.
pub(crate) fn entities() -> Vec<SchemaInfo> {
    let mut schema = Schema::default();
    for spec in command::specs() {
        schema.command(spec);
    }
    for spec in EVENTS {
        schema.event(spec);
    }
    schema.entities
}

#[derive(Default)]
struct Schema {
    entities: Vec<SchemaInfo>,
    /// The wire names of the types described so far, by their own names.
    known: BTreeMap<String, String>,
}

impl Schema {
    fn command(&mut self, spec: &CommandSpec) {
        let kind = SchemaKind::Command(SchemaCommand {
            arg_type: self.reference((spec.arguments)()),
            ret_type: self.reference((spec.returns)()),
        });
        let features = spec
            .features
            .iter()
            .map(|&feature| feature.to_owned())
            .collect();
        let features = Some(features).filter(|features: &Vec<_>| !features.is_empty());
        self.entities.push(SchemaInfo {
            kind,
            name: spec.name.to_owned(),
            features,
        });
    }

    fn event(&mut self, spec: &EventSpec) {
        let kind = SchemaKind::Event(SchemaEvent {
            arg_type: self.reference((spec.data)()),
        });
        self.add(spec.name.to_owned(), kind);
    }

    fn add(&mut self, name: String, kind: SchemaKind) {
        self.entities.push(SchemaInfo {
            kind,
            name,
            features: None,
        });
    }

    /// The wire name of a type; describes the type when it is met first.
    fn reference(&mut self, shape: &'static Shape) -> String {
        match shape {
            Shape::Scalar(scalar) => self.builtin(*scalar),
            Shape::Array(element) => self.array(element()),
            Shape::Enum { name, words } => self.named(name, |_| enumeration(words)),
            Shape::Object { name, parts, tag } => {
                self.named(name, |schema| schema.object(parts, *tag))
            }
            Shape::Alternate { name, branches } => self.named(name, |schema| {
                let kinds = branches.iter().map(|branch| schema.reference(branch()));
                let members = kinds.map(|kind| SchemaAlternateMember { kind }).collect();
                SchemaKind::Alternate(SchemaAlternate { members })
            }),
        }
    }

    /// The wire name of the type `name`, which `describe` describes.
    fn named(&mut self, name: &str, describe: impl FnOnce(&mut Self) -> SchemaKind) -> String {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let number = self.known.len().to_string();
        // Known before it is described, because it may contain itself.
        self.known.insert(name.to_owned(), number.clone());
        let kind = describe(self);
        self.add(number.clone(), kind);
        number
    }

    fn builtin(&mut self, scalar: Scalar) -> String {
        let (name, json_type) = match scalar {
            Scalar::Text => ("str", "string"),
            Scalar::Bool => ("bool", "boolean"),
            Scalar::Int | Scalar::Uint { .. } | Scalar::Size => ("int", "int"),
            Scalar::Null => ("null", "null"),
            Scalar::Any => ("any", "value"),
        };
        if self
            .known
            .insert(name.to_owned(), name.to_owned())
            .is_none()
        {
            let json_type = json_type.to_owned();
            self.add(
                name.to_owned(),
                SchemaKind::Builtin(SchemaBuiltin { json_type }),
            );
        }
        name.to_owned()
    }

    fn array(&mut self, element: &'static Shape) -> String {
        let element_type = self.reference(element);
        let name = format!("[{element_type}]");
        if self.known.insert(name.clone(), name.clone()).is_none() {
            self.add(
                name.clone(),
                SchemaKind::Array(SchemaArray { element_type }),
            );
        }
        name
    }

    fn object(&mut self, parts: &'static [Part], tag: Option<Tag>) -> SchemaKind {
        let Members { members, tag } = Members::of(parts, tag);
        let tag_member = tag.map(|tag| Member {
            name: tag.member,
            shape: tag.words,
            optional: false,
        });
        let members = tag_member.iter().chain(members);
        let members = members.map(|member| self.member(member)).collect();
        let variants = tag.map(|tag| {
            let variants = tag.variants.iter().map(|variant| SchemaVariant {
                case: variant.word.to_owned(),
                kind: self.reference((variant.shape)()),
            });
            variants.collect()
        });
        let tag = tag.map(|tag| tag.member.to_owned());
        SchemaKind::Object(SchemaObject {
            members,
            tag,
            variants,
        })
    }

    fn member(&mut self, member: &Member) -> SchemaMember {
        SchemaMember {
            name: member.name.to_owned(),
            kind: self.reference((member.shape)()),
            default: member.optional.then_some(Value::Null),
            features: None,
        }
    }
}

fn enumeration(words: &[&str]) -> SchemaKind {
    let values: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let members = values
        .iter()
        .map(|name| SchemaEnumMember { name: name.clone() })
        .collect();
    SchemaKind::Enum(SchemaEnum { members, values })
}
