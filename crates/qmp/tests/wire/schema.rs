//! `query-qmp-schema` seen from outside: it is consistent, it tells the truth about what is
//! accepted, and where a name is QEMU's, so is the shape.
//!
//! `qemu-10.0.2.txt` holds what `qemu-storage-daemon` 10.0.2 told about the same commands and
//! events, one path a line; `?` marks what may be left out.

use crate::converse;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn query(command: &str) -> Vec<Value> {
    let reply = converse(&json!({ "execute": command })).unwrap_err();
    reply["return"].as_array().unwrap().clone()
}

struct Schema(BTreeMap<String, Value>);

impl Schema {
    fn query() -> Self {
        let entities = query("query-qmp-schema");
        let count = entities.len();
        let named = entities
            .into_iter()
            .map(|entity| (text(&entity["name"]).to_owned(), entity));
        let schema = Self(named.collect());
        assert_eq!(schema.0.len(), count, "names are unique");
        schema
    }

    fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.0
            .values()
            .filter(|entity| entity["meta-type"] == kind)
            .collect()
    }

    fn get(&self, name: &Value) -> &Value {
        self.0
            .get(text(name))
            .unwrap_or_else(|| panic!("type {name} is described"))
    }

    /// Values of type `name`: every word, every variant, every member there and not there.
    fn samples(&self, name: &Value, depth: usize) -> Vec<Value> {
        let entity = self.get(name);
        match text(&entity["meta-type"]) {
            "builtin" => vec![match text(&entity["json-type"]) {
                "string" => json!("x"),
                "int" => json!(1),
                "boolean" => json!(true),
                "null" => json!(null),
                other => panic!("no argument is a {other}"),
            }],
            "enum" => array(&entity["values"]).clone(),
            "array" => {
                let items = self.samples(&entity["element-type"], depth);
                items.into_iter().map(|item| json!([item])).collect()
            }
            "alternate" => {
                let members = array(&entity["members"])
                    .iter()
                    .map(|member| &member["type"]);
                let shallow = |kind: &&Value| depth < 1 || self.get(kind)["meta-type"] == "builtin";
                members
                    .filter(shallow)
                    .flat_map(|kind| self.samples(kind, depth + 1))
                    .collect()
            }
            "object" => self.objects(entity, depth),
            other => panic!("no type is a {other}"),
        }
    }

    fn objects(&self, entity: &Value, depth: usize) -> Vec<Value> {
        let Some(tag) = entity.get("tag") else {
            return self.with_members(&Map::new(), array(&entity["members"]), depth);
        };
        let mut objects = Vec::new();
        for variant in array(&entity["variants"]) {
            let fixed = Map::from_iter([(text(tag).to_owned(), variant["case"].clone())]);
            let own = array(&entity["members"])
                .iter()
                .filter(|member| member["name"] != *tag);
            let more = array(&self.get(&variant["type"])["members"]);
            let members: Vec<Value> = own.chain(more).cloned().collect();
            objects.extend(self.with_members(&fixed, &members, depth));
        }
        objects
    }

    fn with_members(
        &self,
        fixed: &Map<String, Value>,
        members: &[Value],
        depth: usize,
    ) -> Vec<Value> {
        let name = |member: &Value| text(&member["name"]).to_owned();
        let mut least = fixed.clone();
        for member in members
            .iter()
            .filter(|member| member.get("default").is_none())
        {
            least.insert(
                name(member),
                self.samples(&member["type"], depth)[0].clone(),
            );
        }
        let mut objects = vec![Value::Object(least.clone())];
        for member in members {
            for sample in self.samples(&member["type"], depth) {
                let mut object = least.clone();
                object.insert(name(member), sample);
                objects.push(Value::Object(object));
            }
        }
        objects
    }

    /// One line for each path below `name`, in the form of `qemu-10.0.2.txt`.
    fn paths(&self, path: &str, name: &Value, stack: &[&Value], out: &mut BTreeSet<String>) {
        let entity = self.get(name);
        let line = match text(&entity["meta-type"]) {
            "array" => {
                return self.paths(&format!("{path}[]"), &entity["element-type"], stack, out);
            }
            "builtin" => text(&entity["json-type"]).to_owned(),
            "enum" => joined(array(&entity["values"]).iter().map(text), "|"),
            "alternate" => {
                let kinds = array(&entity["members"])
                    .iter()
                    .map(|member| self.get(&member["type"]));
                joined(
                    kinds.map(|entity| {
                        text(entity.get("json-type").unwrap_or(&entity["meta-type"]))
                    }),
                    "/",
                )
            }
            _ => "object".to_owned(),
        };
        out.insert(format!("{path}: {line}"));
        if line != "object" || stack.contains(&name) {
            return;
        }
        let stack = [stack, &[name]].concat();
        let mut member = |path: &str, member: &Value| {
            let optional = member.get("default").map_or("", |_| "?");
            let path = format!("{path}.{}{optional}", text(&member["name"]));
            self.paths(&path, &member["type"], &stack, out);
        };
        for of_all in array(&entity["members"]) {
            member(path, of_all);
        }
        for variant in entity.get("variants").map(array).into_iter().flatten() {
            let path = format!("{path}({})", text(&variant["case"]));
            let members = array(&self.get(&variant["type"])["members"]);
            for of_variant in members {
                member(&path, of_variant);
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is a string"))
}

fn joined<'a>(words: impl Iterator<Item = &'a str>, separator: &str) -> String {
    let sorted: BTreeSet<&str> = words.collect();
    Vec::from_iter(sorted).join(separator)
}

fn array(value: &Value) -> &Vec<Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("{value} is an array"))
}

#[test]
fn the_commands_of_the_schema_are_those_of_query_commands() {
    let schema = Schema::query();
    let described = schema
        .of_kind("command")
        .into_iter()
        .map(|entity| text(&entity["name"]));
    let described: BTreeSet<_> = described.collect();
    let listed = query("query-commands");
    let listed: BTreeSet<_> = listed.iter().map(|info| text(&info["name"])).collect();
    assert_eq!(described, listed);
    assert_eq!(listed.len(), 27);
}

#[test]
fn every_type_is_described_and_used() {
    let schema = Schema::query();
    let mut used = BTreeSet::new();
    for entity in schema.0.values() {
        let members = ["members", "variants"]
            .iter()
            .filter_map(|list| entity.get(list));
        let references = members
            .flat_map(array)
            .filter_map(|member| member.get("type"));
        let own = ["arg-type", "ret-type", "element-type"]
            .iter()
            .filter_map(|key| entity.get(key));
        for name in references.chain(own) {
            schema.get(name);
            used.insert(text(name));
        }
    }
    for (name, entity) in &schema.0 {
        let entry = matches!(text(&entity["meta-type"]), "command" | "event");
        assert!(entry || used.contains(name.as_str()), "{entity}");
    }
}

#[test]
fn what_the_schema_allows_is_accepted_and_nothing_else() {
    let schema = Schema::query();
    let mut tried = 0;
    for command in schema.of_kind("command") {
        let name = text(&command["name"]);
        if matches!(
            name,
            "query-version" | "query-commands" | "query-qmp-schema"
        ) {
            continue;
        }
        if name == "qmp_capabilities" {
            continue;
        }
        for arguments in schema.samples(&command["arg-type"], 0) {
            let send = |arguments: &Map<String, Value>| {
                converse(&json!({"execute": name, "arguments": arguments}))
            };
            let refusal = |arguments: &Map<String, Value>| {
                text(&send(arguments).unwrap_err()["error"]["desc"]).to_owned()
            };
            let arguments = arguments.as_object().unwrap().clone();
            send(&arguments).unwrap_or_else(|reply| panic!("{name} {arguments:?}: {reply}"));
            let mut more = arguments.clone();
            more.insert("zoo".to_owned(), json!(1));
            assert_eq!(refusal(&more), "Parameter 'zoo' is unexpected", "{name}");
            tried += 1;
        }
    }
    assert!(tried > 300, "only {tried} were tried");
}

#[test]
fn what_the_schema_requires_is_required() {
    let schema = Schema::query();
    for command in schema.of_kind("command") {
        let entity = schema.get(&command["arg-type"]);
        let least = &schema.samples(&command["arg-type"], 0)[0];
        for member in array(&entity["members"]) {
            if member.get("default").is_some() || command["name"] == "qmp_capabilities" {
                continue;
            }
            let mut arguments = least.as_object().unwrap().clone();
            arguments.remove(text(&member["name"])).unwrap();
            let message = json!({"execute": command["name"], "arguments": arguments});
            let reply = converse(&message).unwrap_err();
            let expected = format!("Parameter '{}' is missing", text(&member["name"]));
            assert_eq!(reply["error"]["desc"], expected, "{message}");
        }
    }
}

/// Ours where QEMU has the same command, event or object.
const OURS: [&str; 3] = ["x-ai-", "(ai-overlay)", "blockdev-add .driver"];

#[test]
fn shapes_are_qemus_where_the_names_are() {
    let schema = Schema::query();
    let mut ours = BTreeSet::new();
    for entity in schema.of_kind("command") {
        let name = text(&entity["name"]);
        schema.paths(&format!("{name} "), &entity["arg-type"], &[], &mut ours);
        schema.paths(&format!("{name} ->"), &entity["ret-type"], &[], &mut ours);
    }
    for entity in schema.of_kind("event") {
        let name = text(&entity["name"]);
        schema.paths(&format!("{name} "), &entity["arg-type"], &[], &mut ours);
    }
    let theirs: BTreeSet<&str> = include_str!("qemu-10.0.2.txt").lines().collect();
    let names: BTreeSet<&str> = theirs
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    for line in &ours {
        let name = line.split(' ').next().unwrap();
        if !names.contains(name) || OURS.iter().any(|ours| line.contains(ours)) {
            continue;
        }
        let (path, shape) = line.split_once(": ").unwrap();
        let same = |their: &&&str| their.split_once(": ").unwrap().0 == path;
        let their = theirs
            .iter()
            .find(same)
            .unwrap_or_else(|| panic!("QEMU has no {line}"));
        let their_words: BTreeSet<&str> = their.split_once(": ").unwrap().1.split('|').collect();
        let words: BTreeSet<&str> = shape.split('|').collect();
        assert!(words.is_subset(&their_words), "{line} is {their} in QEMU");
    }
    // What QEMU always gives, we always give.
    for line in theirs {
        let (path, _) = line.split_once(": ").unwrap();
        let event = line.starts_with(char::is_uppercase);
        if (event || path.contains("->")) && !path.contains('?') {
            let ours = ours
                .iter()
                .any(|ours| ours.split_once(": ").unwrap().0 == path);
            assert!(ours, "QEMU always gives {line}");
        }
    }
}
