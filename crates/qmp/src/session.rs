//! One client's conversation, without input or output.
//!
//! ```text
//! handle_bytes ─▶ input ─▶ Framer ─▶ envelope ─▶ poll_command ─▶ (its user acts)
//! poll_transmit ◀──────── output ◀── reply, event ◀──────────────────────┘
//! ```
//!
//! Order contract: commands run one after the other, and replies, errors of framing included,
//! leave in the order of what they answer. Events leave when they happen, once negotiation has
//! ended.
//!
//! Bounds: input is read on only while at most [`PAUSE_BYTES`] of output wait, so that a client
//! that sends garbage and never reads is no longer read from ([`Session::wants_bytes`]). A client
//! for which more than [`MAX_BACKLOG_BYTES`] wait when the next message is due is given up
//! ([`Session::is_overrun`]); so at most that and one message are held.

use crate::command::{self, Command, Parsed, ProtocolCommand};
use crate::error::ErrorClass;
use crate::event::Event;
use crate::framing::Framer;
use crate::types::{Capability, CommandInfo, Nothing, QmpCapabilities, Timestamp, VersionInfo};
use crate::{Error, json, schema};
use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde_json::{Map, Value};

/// Output that may wait before input is no longer read.
pub const PAUSE_BYTES: usize = 64 << 10;

/// Output that may wait before the client is given up.
pub const MAX_BACKLOG_BYTES: usize = 1 << 20;

/// A client's conversation.
///
/// Its user calls [`handle_bytes`](Self::handle_bytes) with what arrives,
/// [`poll_command`](Self::poll_command) until it returns `None` (and again when output has been
/// taken or a command answered), [`reply`](Self::reply) once for
/// each command, and sends what [`poll_transmit`](Self::poll_transmit) returns.
#[derive(Debug)]
pub struct Session {
    framer: Framer,
    input: BytesMut,
    output: BytesMut,
    stage: Stage,
    oob: bool,
    overrun: bool,
}

#[derive(Debug)]
enum Stage {
    /// Before `qmp_capabilities`.
    Negotiating,
    /// Ready for a command.
    Idle,
    /// A command is being carried out.
    Busy { id: Option<Value> },
}

/// What surrounds a command.
struct Envelope {
    name: String,
    out_of_band: bool,
    arguments: Value,
}

#[derive(Serialize)]
struct Greeting {
    #[serde(rename = "QMP")]
    qmp: Offer,
}

#[derive(Serialize)]
struct Offer {
    version: VersionInfo,
    capabilities: [Capability; 1],
}

#[derive(Serialize)]
struct Success<T> {
    #[serde(rename = "return")]
    value: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
}

#[derive(Serialize)]
struct Failure {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    error: Error,
}

#[derive(Serialize)]
struct Happening<'a> {
    timestamp: Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A conversation with a client that has just connected; the greeting waits to be sent.
    pub fn new() -> Self {
        let mut session = Self {
            framer: Framer::default(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            stage: Stage::Negotiating,
            oob: false,
            overrun: false,
        };
        let offer = Offer {
            version: VersionInfo::current(),
            capabilities: [Capability::Oob],
        };
        session.send(&Greeting { qmp: offer });
        session
    }

    /// Whether the client should be read from now.
    pub fn wants_bytes(&self) -> bool {
        self.input.is_empty() && !self.overrun
    }

    /// Whether the client reads so slowly that the connection must be closed.
    pub fn is_overrun(&self) -> bool {
        self.overrun
    }

    /// Takes what the client sent.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next command to carry out, if there is one and none is being carried out.
    pub fn poll_command(&mut self) -> Option<Command> {
        while !self.is_paused() {
            let (used, outcome) = self.framer.advance(&self.input);
            self.input.advance(used);
            match outcome? {
                Ok(message) => {
                    if let Some(command) = self.message(message) {
                        return Some(command);
                    }
                }
                Err(error) => self.refuse(None, Error::generic(error.to_string())),
            }
        }
        None
    }

    /// Answers the command that [`poll_command`](Self::poll_command) returned last.
    pub fn reply(&mut self, result: Result<impl Serialize, Error>) {
        let Stage::Busy { id } = std::mem::replace(&mut self.stage, Stage::Idle) else {
            unreachable!("a reply answers a command that has not been answered");
        };
        match result {
            Ok(value) => self.send(&Success { value, id }),
            Err(error) => self.refuse(id, error),
        }
    }

    /// Tells the client what happened, if negotiation has ended.
    pub fn event(&mut self, event: &Event, timestamp: Timestamp) {
        match self.stage {
            Stage::Negotiating => {}
            Stage::Idle | Stage::Busy { .. } => self.send(&Happening { timestamp, event }),
        }
    }

    /// All that waits to be sent, if anything does.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let waits = !self.output.is_empty() && !self.overrun;
        waits.then(|| self.output.split().freeze())
    }

    fn is_paused(&self) -> bool {
        let busy = matches!(self.stage, Stage::Busy { .. });
        busy || self.overrun || self.output.len() > PAUSE_BYTES
    }

    fn message(&mut self, message: Value) -> Option<Command> {
        let Value::Object(mut members) = message else {
            self.refuse(None, Error::generic("QMP input must be a JSON object"));
            return None;
        };
        let id = members.remove("id");
        match self
            .open(members)
            .and_then(|envelope| self.dispatch(envelope))
        {
            Ok(Parsed::Command(command)) => {
                self.stage = Stage::Busy { id };
                Some(command)
            }
            Ok(Parsed::Protocol(command)) => {
                self.answer(command, id);
                None
            }
            Err(error) => {
                self.refuse(id, error);
                None
            }
        }
    }

    fn open(&self, mut members: Map<String, Value>) -> Result<Envelope, Error> {
        let arguments = match members.remove("arguments") {
            None => Value::Object(Map::new()),
            Some(arguments @ Value::Object(_)) => arguments,
            Some(_) => {
                return Err(Error::generic(
                    "QMP input member 'arguments' must be an object",
                ));
            }
        };
        let in_band = members.remove("execute");
        let out_of_band = if self.oob && in_band.is_none() {
            members.remove("exec-oob")
        } else {
            None
        };
        if let Some(name) = members.keys().next() {
            return Err(Error::generic(format!(
                "QMP input member '{name}' is unexpected"
            )));
        }
        let member = if out_of_band.is_some() {
            "exec-oob"
        } else {
            "execute"
        };
        match (out_of_band.is_some(), in_band.or(out_of_band)) {
            (out_of_band, Some(Value::String(name))) => Ok(Envelope {
                name,
                out_of_band,
                arguments,
            }),
            (_, Some(_)) => Err(Error::generic(format!(
                "QMP input member '{member}' must be a string"
            ))),
            (_, None) => Err(Error::generic("QMP input lacks member 'execute'")),
        }
    }

    fn dispatch(&self, envelope: Envelope) -> Result<Parsed, Error> {
        let Envelope {
            name,
            out_of_band,
            arguments,
        } = envelope;
        let negotiates = name == "qmp_capabilities";
        let refused = match (&self.stage, negotiates) {
            (Stage::Negotiating, false) => {
                "Expecting capabilities negotiation with 'qmp_capabilities'"
            }
            (Stage::Idle | Stage::Busy { .. }, true) => {
                "Capabilities negotiation is already complete, command ignored"
            }
            (Stage::Negotiating, true) | (Stage::Idle | Stage::Busy { .. }, false) => {
                let parsed = command::parse(&name, arguments)?;
                if out_of_band {
                    let desc = format!("The command {name} does not support OOB");
                    return Err(Error::generic(desc));
                }
                return Ok(parsed);
            }
        };
        Err(Error::new(ErrorClass::CommandNotFound, refused))
    }

    fn answer(&mut self, command: ProtocolCommand, id: Option<Value>) {
        match command {
            ProtocolCommand::QmpCapabilities(QmpCapabilities { enable }) => {
                self.oob = enable.is_some_and(|enable| enable.contains(&Capability::Oob));
                self.stage = Stage::Idle;
                self.send(&Success {
                    value: Nothing {},
                    id,
                });
            }
            ProtocolCommand::QueryVersion => {
                self.send(&Success {
                    value: VersionInfo::current(),
                    id,
                });
            }
            ProtocolCommand::QueryCommands => {
                let info = |spec: &command::CommandSpec| CommandInfo {
                    name: spec.name.to_owned(),
                };
                let value: Vec<CommandInfo> = command::specs().map(info).collect();
                self.send(&Success { value, id });
            }
            ProtocolCommand::QueryQmpSchema => self.send(&Success {
                value: schema::entities(),
                id,
            }),
        }
    }

    fn refuse(&mut self, id: Option<Value>, error: Error) {
        self.send(&Failure { id, error });
    }

    fn send(&mut self, message: &impl Serialize) {
        if self.output.len() > MAX_BACKLOG_BYTES {
            self.overrun = true;
            self.input.clear();
            self.output.clear();
        }
        if !self.overrun {
            json::write_line(&mut self.output, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BlockExportDeleted, Event};
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use std::fmt::Write;

    /// A session whose commands are all answered at once, `blockdev-del` with an error.
    #[derive(Default)]
    struct Conversation {
        session: Session,
        transcript: String,
    }

    impl Conversation {
        fn negotiated() -> Self {
            let mut conversation = Self::default();
            conversation
                .session
                .handle_bytes(b"{'execute':'qmp_capabilities'}");
            assert_eq!(conversation.session.poll_command(), None);
            conversation.session.poll_transmit().unwrap();
            conversation
        }

        fn client_sends(&mut self, bytes: &[u8]) {
            self.session.handle_bytes(bytes);
            while let Some(command) = self.session.poll_command() {
                writeln!(self.transcript, "    {command:?}").unwrap();
                let in_use = matches!(command, Command::BlockdevDel(_));
                let error = in_use.then(|| Error::generic("Node is in use"));
                self.session.reply(error.map_or(Ok(Nothing {}), Err));
            }
            self.drain();
        }

        fn drain(&mut self) {
            if let Some(bytes) = self.session.poll_transmit() {
                self.transcript += &str::from_utf8(&bytes).unwrap().replace('\r', "");
            }
        }
    }

    fn check(mut conversation: Conversation, lines: &[&str], expected: &Expect) {
        for line in lines {
            conversation.drain();
            writeln!(conversation.transcript, "> {line}").unwrap();
            conversation.client_sends(line.as_bytes());
        }
        expected.assert_eq(&conversation.transcript);
    }

    fn deleted(id: &str) -> Event {
        Event::BlockExportDeleted(BlockExportDeleted { id: id.to_owned() })
    }

    #[test]
    fn a_client_is_greeted_and_must_negotiate_first() {
        check(
            Conversation::default(),
            &[
                r#"{"execute":"query-block"}"#,
                r#"{"execute":"nope","id":1}"#,
                r#"{"exec-oob":"qmp_capabilities"}"#,
                r#"{"execute":"qmp_capabilities","arguments":{"enable":["magic"]}}"#,
                r#"{"execute":"qmp_capabilities","arguments":{"x":1}}"#,
                r#"{"execute":"qmp_capabilities","id":"first"}"#,
                r#"{"execute":"qmp_capabilities"}"#,
                r#"{"execute":"query-block","id":{"deep":[1]}}"#,
            ],
            &expect![[r#"
                {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "afterimage 0.1.0"}, "capabilities": ["oob"]}}
                > {"execute":"query-block"}
                {"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}
                > {"execute":"nope","id":1}
                {"id": 1, "error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}
                > {"exec-oob":"qmp_capabilities"}
                {"error": {"class": "GenericError", "desc": "QMP input member 'exec-oob' is unexpected"}}
                > {"execute":"qmp_capabilities","arguments":{"enable":["magic"]}}
                {"error": {"class": "GenericError", "desc": "Parameter 'enable[0]' does not accept value 'magic'"}}
                > {"execute":"qmp_capabilities","arguments":{"x":1}}
                {"error": {"class": "GenericError", "desc": "Parameter 'x' is unexpected"}}
                > {"execute":"qmp_capabilities","id":"first"}
                {"return": {}, "id": "first"}
                > {"execute":"qmp_capabilities"}
                {"error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}}
                > {"execute":"query-block","id":{"deep":[1]}}
                    QueryBlock
                {"return": {}, "id": {"deep": [1]}}
            "#]],
        );
    }

    #[test]
    fn the_envelope_is_checked_member_by_member() {
        check(
            Conversation::negotiated(),
            &[
                "[]",
                "{}",
                r#"{"foo":1}"#,
                r#"{"execute":1}"#,
                r#"{"execute":"quit","arguments":[]}"#,
                r#"{"execute":"quit","arguments":{"now":true}}"#,
                r#"{"execute":"quit","exec-oob":"quit"}"#,
                r#"{"arguments":{},"id":4}"#,
                r#"{"execute":"nope","id":null}"#,
                r#"{"exec-oob":"quit"}"#,
            ],
            &expect![[r#"
                > []
                {"error": {"class": "GenericError", "desc": "QMP input must be a JSON object"}}
                > {}
                {"error": {"class": "GenericError", "desc": "QMP input lacks member 'execute'"}}
                > {"foo":1}
                {"error": {"class": "GenericError", "desc": "QMP input member 'foo' is unexpected"}}
                > {"execute":1}
                {"error": {"class": "GenericError", "desc": "QMP input member 'execute' must be a string"}}
                > {"execute":"quit","arguments":[]}
                {"error": {"class": "GenericError", "desc": "QMP input member 'arguments' must be an object"}}
                > {"execute":"quit","arguments":{"now":true}}
                {"error": {"class": "GenericError", "desc": "Parameter 'now' is unexpected"}}
                > {"execute":"quit","exec-oob":"quit"}
                {"error": {"class": "GenericError", "desc": "QMP input member 'exec-oob' is unexpected"}}
                > {"arguments":{},"id":4}
                {"id": 4, "error": {"class": "GenericError", "desc": "QMP input lacks member 'execute'"}}
                > {"execute":"nope","id":null}
                {"id": null, "error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}
                > {"exec-oob":"quit"}
                {"error": {"class": "GenericError", "desc": "QMP input member 'exec-oob' is unexpected"}}
            "#]],
        );
    }

    #[test]
    fn a_command_out_of_band_needs_the_capability_and_a_command_that_has_it() {
        check(
            Conversation::default(),
            &[
                r#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#,
                r#"{"exec-oob":"quit","id":1}"#,
                r#"{"exec-oob":"nope"}"#,
                r#"{"exec-oob":2}"#,
            ],
            &expect![[r#"
                {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "afterimage 0.1.0"}, "capabilities": ["oob"]}}
                > {"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}
                {"return": {}}
                > {"exec-oob":"quit","id":1}
                {"id": 1, "error": {"class": "GenericError", "desc": "The command quit does not support OOB"}}
                > {"exec-oob":"nope"}
                {"error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}
                > {"exec-oob":2}
                {"error": {"class": "GenericError", "desc": "QMP input member 'exec-oob' must be a string"}}
            "#]],
        );
    }

    #[test]
    fn broken_input_is_answered_in_its_place_and_the_conversation_goes_on() {
        check(
            Conversation::negotiated(),
            &[
                r#"{"execute":"quit","id":1}{"execute" "quit"} {"execute":"quit","id":2}"#,
                "{\"execute\":\"qu",
                "it\",\"id\":3}",
                r#"{"execute":"blockdev-del","arguments":{"node-name":"n"},"id":4}"#,
            ],
            &expect![[r#"
                > {"execute":"quit","id":1}{"execute" "quit"} {"execute":"quit","id":2}
                    Quit
                    Quit
                {"return": {}, "id": 1}
                {"error": {"class": "GenericError", "desc": "JSON parse error, missing : in object pair"}}
                {"return": {}, "id": 2}
                > {"execute":"qu
                > it","id":3}
                    Quit
                {"return": {}, "id": 3}
                > {"execute":"blockdev-del","arguments":{"node-name":"n"},"id":4}
                    BlockdevDel(BlockdevDel { node_name: "n" })
                {"id": 4, "error": {"class": "GenericError", "desc": "Node is in use"}}
            "#]],
        );
    }

    #[test]
    fn the_next_command_waits_for_the_reply_and_events_do_not() {
        let mut conversation = Conversation::negotiated();
        let session = &mut conversation.session;
        session.handle_bytes(br#"{"execute":"quit","id":1}{"execute":"query-jobs","id":2}]"#);
        assert_eq!(session.poll_command(), Some(Command::Quit));
        assert_eq!(session.poll_command(), None);
        let time = Timestamp {
            seconds: 7,
            microseconds: 9,
        };
        session.event(&deleted("e"), time);
        session.reply(Ok(Nothing {}));
        assert_eq!(session.poll_command(), Some(Command::QueryJobs));
        session.reply(Ok(Vec::<Nothing>::new()));
        assert_eq!(session.poll_command(), None);
        conversation.drain();
        expect![[r#"
            {"timestamp": {"seconds": 7, "microseconds": 9}, "event": "BLOCK_EXPORT_DELETED", "data": {"id": "e"}}
            {"return": {}, "id": 1}
            {"return": [], "id": 2}
            {"error": {"class": "GenericError", "desc": "JSON parse error, expecting value"}}
        "#]]
        .assert_eq(&conversation.transcript);
    }

    #[test]
    fn events_wait_for_the_end_of_negotiation() {
        let mut session = Session::new();
        session.poll_transmit().unwrap();
        session.event(
            &deleted("e"),
            Timestamp {
                seconds: 0,
                microseconds: 0,
            },
        );
        assert_eq!(session.poll_transmit(), None);
    }

    #[test]
    fn a_client_that_sends_garbage_and_never_reads_is_not_read_from() {
        let mut session = Conversation::negotiated().session;
        session.handle_bytes("}".repeat(1 << 16).as_bytes());
        assert_eq!(session.poll_command(), None);
        assert!(!session.wants_bytes());
        let held = session.poll_transmit().unwrap().len();
        assert!((PAUSE_BYTES..PAUSE_BYTES + 200).contains(&held), "{held}");
        // Once it reads, it is read from again, and all of it is answered.
        let mut answers = held;
        while !session.wants_bytes() {
            assert_eq!(session.poll_command(), None);
            answers += session.poll_transmit().unwrap().len();
        }
        let answer =
            r#"{"error": {"class": "GenericError", "desc": "JSON parse error, expecting value"}}"#;
        assert_eq!(answers, (answer.len() + 2) << 16);
    }

    #[test]
    fn a_client_that_never_reads_events_is_given_up_at_the_bound() {
        let mut session = Conversation::negotiated().session;
        let event = deleted(&"e".repeat(10_000));
        let mut events = 0;
        while !session.is_overrun() {
            session.event(
                &event,
                Timestamp {
                    seconds: 0,
                    microseconds: 0,
                },
            );
            events += 1;
        }
        assert_eq!(events, MAX_BACKLOG_BYTES / 10_107 + 2);
        assert!(!session.wants_bytes());
        assert_eq!(session.poll_transmit(), None);
        assert_eq!(session.poll_command(), None);
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_makes_the_same_conversation(
            cuts in prop::collection::vec(1usize..40, 1..60),
        ) {
            let stream = concat!(
                r#"{"execute":"query-jobs","id":1}[1,2]{"execute":"qmp_capabilities"}"#,
                r#"{"execute":"blockdev-del","arguments":{"node-name":"ü"}} nonsense{"id":5}"#,
                "{'execute':'quit'}\n\u{1}{\"execute\":\"query-block\",\"id\":null}",
            );
            let mut whole = Conversation::default();
            whole.client_sends(stream.as_bytes());
            let mut split = Conversation::default();
            let mut rest = stream.as_bytes();
            for cut in cuts.into_iter().cycle() {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                split.client_sends(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let sorted = |transcript: &str| {
                let (commands, replies): (Vec<_>, Vec<_>) =
                    transcript.lines().map(str::to_owned).partition(|line| line.starts_with(' '));
                [commands, replies].concat()
            };
            prop_assert_eq!(sorted(&split.transcript), sorted(&whole.transcript));
        }
    }
}
