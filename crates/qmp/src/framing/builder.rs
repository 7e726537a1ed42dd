//! Tokens to values, without recursion: the open brackets are a stack on the heap.

use super::lexer::{Bracket, Token};
use super::{FramingError, MAX_DEPTH};
use serde_json::{Map, Value};

/// The value being built.
#[derive(Debug, Default)]
pub(super) struct Builder {
    open: Vec<Open>,
    /// The first syntax error of the value; the rest of it is only counted.
    failed: Option<FramingError>,
}

#[derive(Debug)]
struct Open {
    container: Container,
    expects: Expects,
}

#[derive(Debug)]
enum Container {
    Array(Vec<Value>),
    Object {
        members: Map<String, Value>,
        key: String,
    },
}

/// What may come next in the innermost open bracket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    /// The first item, or the closing bracket.
    FirstOrEnd,
    /// An item of an array, a key of an object: after a comma.
    Item,
    /// The colon after a key.
    Colon,
    /// The value after a colon.
    Member,
    /// A comma or the closing bracket.
    CommaOrEnd,
}

impl Open {
    fn new(bracket: Bracket) -> Self {
        let container = match bracket {
            Bracket::Curly => Container::Object {
                members: Map::new(),
                key: String::new(),
            },
            Bracket::Square => Container::Array(Vec::new()),
        };
        Self {
            container,
            expects: Expects::FirstOrEnd,
        }
    }

    fn bracket(&self) -> Bracket {
        match self.container {
            Container::Array(_) => Bracket::Square,
            Container::Object { .. } => Bracket::Curly,
        }
    }

    /// Whether an opening bracket may stand here.
    fn takes_value(&self) -> Result<(), FramingError> {
        match (self.bracket(), self.expects) {
            (Bracket::Square, Expects::FirstOrEnd | Expects::Item) => Ok(()),
            (Bracket::Curly, Expects::Member) => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    fn add(&mut self, value: Value) -> Result<(), FramingError> {
        let unexpected = self.unexpected();
        self.expects = match (&mut self.container, self.expects, value) {
            (Container::Array(items), Expects::FirstOrEnd | Expects::Item, value) => {
                items.push(value);
                Expects::CommaOrEnd
            }
            (
                Container::Object { members, key },
                Expects::FirstOrEnd | Expects::Item,
                Value::String(name),
            ) => {
                if members.contains_key(&name) {
                    return Err(FramingError::syntax(format!("duplicate key \"{name}\"")));
                }
                *key = name;
                Expects::Colon
            }
            (Container::Object { members, key }, Expects::Member, value) => {
                members.insert(std::mem::take(key), value);
                Expects::CommaOrEnd
            }
            _ => return Err(unexpected),
        };
        Ok(())
    }

    fn comma(&mut self) -> Result<(), FramingError> {
        self.punctuation(Expects::CommaOrEnd, Expects::Item)
    }

    fn colon(&mut self) -> Result<(), FramingError> {
        self.punctuation(Expects::Colon, Expects::Member)
    }

    fn punctuation(&mut self, at: Expects, next: Expects) -> Result<(), FramingError> {
        if self.expects != at {
            return Err(self.unexpected());
        }
        self.expects = next;
        Ok(())
    }

    fn close(self) -> Result<Value, FramingError> {
        match (self.expects, self.container) {
            (Expects::FirstOrEnd | Expects::CommaOrEnd, Container::Array(items)) => {
                Ok(Value::Array(items))
            }
            (Expects::FirstOrEnd | Expects::CommaOrEnd, Container::Object { members, .. }) => {
                Ok(Value::Object(members))
            }
            (expects, container) => Err(Self { container, expects }.unexpected()),
        }
    }

    fn unexpected(&self) -> FramingError {
        FramingError::syntax(match (self.bracket(), self.expects) {
            (Bracket::Square, Expects::FirstOrEnd | Expects::Item) => "expecting value",
            (Bracket::Curly, Expects::FirstOrEnd | Expects::Item) => "expecting a string as key",
            (_, Expects::Colon) => "missing : in object pair",
            (_, Expects::Member) => "expecting value",
            (Bracket::Square, Expects::CommaOrEnd) => "expecting a comma or ]",
            (Bracket::Curly, Expects::CommaOrEnd) => "expecting a comma or }",
        })
    }
}

impl Builder {
    /// Whether no value has been begun.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Adds a token; returns the value or the error that it completes.
    pub(super) fn push(&mut self, token: Token) -> Option<Result<Value, FramingError>> {
        let result = match token {
            Token::Open(_) if self.open.len() >= MAX_DEPTH => {
                return Some(Err(FramingError::TooDeep));
            }
            Token::Open(bracket) => self.open(bracket),
            Token::Close(bracket) => return self.close(bracket),
            Token::Comma => self.punctuation(Open::comma),
            Token::Colon => self.punctuation(Open::colon),
            Token::Scalar(Ok(value)) if self.is_idle() => return Some(Ok(value)),
            Token::Scalar(value) => value.and_then(|value| self.add(value)),
        };
        let error = result.err()?;
        if self.is_idle() {
            return Some(Err(error));
        }
        self.fail(error);
        None
    }

    fn open(&mut self, bracket: Bracket) -> Result<(), FramingError> {
        let allowed = match self.open.last() {
            Some(open) => open.takes_value(),
            None => Ok(()),
        };
        self.open.push(Open::new(bracket));
        allowed
    }

    fn close(&mut self, bracket: Bracket) -> Option<Result<Value, FramingError>> {
        let Some(open) = self.open.pop() else {
            return Some(Err(FramingError::syntax("expecting value")));
        };
        if open.bracket() != bracket {
            // Where the value ends is anybody's guess; what follows is read as new.
            *self = Self::default();
            let close = match bracket {
                Bracket::Curly => "} closes no {",
                Bracket::Square => "] closes no [",
            };
            return Some(Err(FramingError::syntax(close)));
        }
        let closed = match self.failed.take() {
            Some(error) => Err(error),
            None => open.close(),
        };
        if self.is_idle() {
            return Some(closed);
        }
        if let Err(error) = closed.and_then(|value| self.add(value)) {
            self.fail(error);
        }
        None
    }

    fn add(&mut self, value: Value) -> Result<(), FramingError> {
        match self.open.last_mut() {
            Some(open) if self.failed.is_none() => open.add(value),
            _ => Ok(()),
        }
    }

    fn punctuation(
        &mut self,
        apply: impl FnOnce(&mut Open) -> Result<(), FramingError>,
    ) -> Result<(), FramingError> {
        match self.open.last_mut() {
            Some(open) => apply(open),
            None => Err(FramingError::syntax("expecting value")),
        }
    }

    fn fail(&mut self, error: FramingError) {
        self.failed.get_or_insert(error);
    }
}
