//! What `query-qmp-schema` returns: one entity for each command, event and type.

use crate::define::{object, union};
use serde_json::Value;

object! {
    /// An entity.
    pub struct SchemaInfo {
        flat {
            /// What it is.
            kind: SchemaKind,
        }
        /// Its name; of a type that is no builtin, a number without meaning.
        "name" => name: String,
        /// What is special about it, such as `unstable`.
        "features" => features: Option<Vec<String>>,
    }
}

union! {
    /// What an entity is.
    pub enum SchemaKind by "meta-type" as "SchemaMetaType" {
        /// A builtin type.
        "builtin" => Builtin(SchemaBuiltin),
        /// One of several words.
        "enum" => Enum(SchemaEnum),
        /// A list.
        "array" => Array(SchemaArray),
        /// Named members.
        "object" => Object(SchemaObject),
        /// Types told apart by the JSON type.
        "alternate" => Alternate(SchemaAlternate),
        /// A command.
        "command" => Command(SchemaCommand),
        /// An event.
        "event" => Event(SchemaEvent),
    }
}

object! {
    /// A builtin type.
    pub struct SchemaBuiltin {
        /// Its type in JSON.
        "json-type" => json_type: String,
    }
}

object! {
    /// One of several words.
    pub struct SchemaEnum {
        /// The words.
        "members" => members: Vec<SchemaEnumMember>,
        /// The words again, as older clients want them.
        "values" => values: Vec<String>,
    }
}

object! {
    /// A word.
    pub struct SchemaEnumMember {
        /// The word.
        "name" => name: String,
    }
}

object! {
    /// A list.
    pub struct SchemaArray {
        /// The type of its elements.
        "element-type" => element_type: String,
    }
}

object! {
    /// Named members.
    pub struct SchemaObject {
        /// The members that are always possible.
        "members" => members: Vec<SchemaMember>,
        /// The member on which further ones depend.
        "tag" => tag: Option<String>,
        /// The further members by its value.
        "variants" => variants: Option<Vec<SchemaVariant>>,
    }
}

object! {
    /// A member.
    pub struct SchemaMember {
        /// Its name.
        "name" => name: String,
        /// Its type.
        "type" => kind: String,
        /// There, as `null`, when the member may be left out.
        "default" => default: Option<Value>,
        /// What is special about it.
        "features" => features: Option<Vec<String>>,
    }
}

object! {
    /// The further members for one value of the tag.
    pub struct SchemaVariant {
        /// The value.
        "case" => case: String,
        /// The object whose members are added.
        "type" => kind: String,
    }
}

object! {
    /// Types told apart by the JSON type.
    pub struct SchemaAlternate {
        /// The types.
        "members" => members: Vec<SchemaAlternateMember>,
    }
}

object! {
    /// One of the types.
    pub struct SchemaAlternateMember {
        /// The type.
        "type" => kind: String,
    }
}

object! {
    /// A command.
    pub struct SchemaCommand {
        /// The object of its arguments.
        "arg-type" => arg_type: String,
        /// The type of its return.
        "ret-type" => ret_type: String,
    }
}

object! {
    /// An event.
    pub struct SchemaEvent {
        /// The object of its data.
        "arg-type" => arg_type: String,
    }
}
