//! `afterimage qmp COMMAND [key=value…]`: one command, its return as JSON.

use crate::cli::{Exit, QmpArgs};
use crate::verbs::{TIMEOUT, connect, report};
use serde_json::{Map, Value};
use std::path::Path;

/// Runs the verb.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the verb's own output"
)]
pub(crate) fn run(args: &QmpArgs, control: Option<&Path>, json: bool) -> Exit {
    let arguments = match nest(&args.arguments) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("afterimage: {message}");
            return Exit::Usage;
        }
    };
    let answer =
        connect(control).and_then(|mut client| client.execute(&args.command, &arguments, TIMEOUT));
    match answer {
        Ok(value) if json => println!("{value}"),
        Ok(value) => println!("{value:#}"),
        Err(failure) => return report(&failure, json),
    }
    Exit::Ok
}

/// Builds the arguments: `a.b=1` becomes `{"a": {"b": 1}}`.
fn nest(words: &[String]) -> Result<Value, String> {
    let mut arguments = Map::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(format!("'{word}' is no key=value"));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        insert(&mut arguments, key, value).map_err(|()| format!("'{key}' is given twice"))?;
    }
    Ok(Value::Object(arguments))
}

/// Puts `value` at a dotted key. Fails if something stands there already.
fn insert(into: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), ()> {
    let Some((head, rest)) = key.split_once('.') else {
        return match into.insert(key.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(()),
        };
    };
    let inner = into
        .entry(head)
        .or_insert_with(|| Value::Object(Map::new()));
    insert(inner.as_object_mut().ok_or(())?, rest, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn dotted_keys_nest_and_values_are_json_or_strings() {
        let arguments = nest(&words(&["a.b=1", "a.c=x", "d=true", "e=\"1\""])).unwrap();
        assert_eq!(
            arguments,
            json!({"a": {"b": 1, "c": "x"}, "d": true, "e": "1"})
        );
    }

    #[test]
    fn a_key_given_twice_is_refused_by_name() {
        assert_eq!(
            nest(&words(&["a=1", "a=2"])).unwrap_err(),
            "'a' is given twice"
        );
        assert_eq!(
            nest(&words(&["a=1", "a.b=2"])).unwrap_err(),
            "'a.b' is given twice"
        );
        assert_eq!(nest(&words(&["a"])).unwrap_err(), "'a' is no key=value");
    }
}
