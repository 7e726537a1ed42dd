//! Scripts: what happens to a pair, as a line of text that people and random runs both write.
//!
//! ```text
//! guest 0 G | peer 1-2 P | checkpoint                  one after the other
//! peer 0 P & @100 checkpoint & @150 guest read 0-3     at once, some a little later (µs)
//! ```
//!
//! | text | does |
//! |---|---|
//! | `peer 1-2 P`, `guest 0 #7` | writes a letter, or a number, to blocks |
//! | `peer zero 1`, `guest discard 0-3`, `peer flush`, `guest read 0-3` | the other requests |
//! | `start`, `checkpoint`, `stop`, `failover` | the commands |
//! | `settle` | waits until a failover's commit has ended |
//! | `fault hidden write 28 skip 1 times 2` | the second and third write to hidden fail with 28; see [`Fault`] |
//! | `space 4096`, `heal` | limits the secondary's disk space; ends all faults and silences |
//! | `kill`, `power-cut` | the secondary dies and comes up again |
//! | `lose 100` | the peer's connection is lost after 100 more bytes |
//! | `silence`, `hang 50` | the peer is not heard any more; the secondary stands still for 50 ms |
//! | `peer-dies` | the peer is killed, for good |

use crate::disk::{DiskOp, Effect, Fault};
use crate::model::{Tag, Writer};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

/// Steps, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script(pub Vec<Step>);

/// Actions that are begun together; the step ends when all have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step(pub Vec<Timed>);

/// An action and when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    /// Microseconds after the step's begin.
    pub after: u64,
    /// What happens.
    pub action: Action,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A request of somebody's.
    Request(Writer, Request),
    /// A command of the manager's.
    Command(Command),
    /// Wait until a failover's commit has ended.
    Settle,
    /// Something breaks, or is mended.
    Mishap(Mishap),
}

/// A request to the disk or the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Write a tag to blocks.
    Write(Range<usize>, Tag),
    /// Make blocks read as zeroes.
    Zero(Range<usize>),
    /// Give blocks back.
    Discard(Range<usize>),
    /// Make earlier writes durable.
    Flush,
    /// Read blocks; the model judges what comes.
    Read(Range<usize>),
}

/// A command to the secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `xen-set-replication` enable.
    Start,
    /// `xen-colo-do-checkpoint`.
    Checkpoint,
    /// `xen-set-replication` disable.
    Stop,
    /// The same with failover.
    Failover,
}

/// Something breaks, or is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// A disk of the secondary misbehaves.
    Fault(Fault),
    /// The secondary's disks have only so many bytes left.
    Space(u64),
    /// No fault, limit or silence any more.
    Heal,
    /// The secondary's process is killed and started again.
    Kill,
    /// The secondary's host loses power and comes up again.
    PowerCut,
    /// The peer's connection is lost after so many more bytes.
    Lose(usize),
    /// What the peer sends does not arrive any more; it gives up and connects anew.
    Silence,
    /// The peer is killed, for good.
    PeerDies,
    /// The secondary stands still for so many milliseconds.
    Hang(u64),
}

/// Why a script makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(String);

impl FromStr for Script {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Script, Unreadable> {
        let steps = text.split('|').map(|step| {
            let actions = step.split('&').map(|action| parse_timed(action.trim()));
            actions.collect::<Result<_, _>>().map(Step)
        });
        steps.collect::<Result<_, _>>().map(Script)
    }
}

fn parse_timed(text: &str) -> Result<Timed, Unreadable> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (after, words) = match words.split_first() {
        Some((first, rest)) => match first.strip_prefix('@') {
            Some(time) => (number(time)?, rest),
            None => (0, &words[..]),
        },
        None => (0, &words[..]),
    };
    let action = parse_action(words)?;
    Ok(Timed { after, action })
}

fn parse_action(words: &[&str]) -> Result<Action, Unreadable> {
    Ok(match words {
        ["peer", rest @ ..] => Action::Request(Writer::Peer, parse_request(rest)?),
        ["guest", rest @ ..] => Action::Request(Writer::Guest, parse_request(rest)?),
        ["start"] => Action::Command(Command::Start),
        ["checkpoint"] => Action::Command(Command::Checkpoint),
        ["stop"] => Action::Command(Command::Stop),
        ["failover"] => Action::Command(Command::Failover),
        ["settle"] => Action::Settle,
        rest => Action::Mishap(parse_mishap(rest)?),
    })
}

fn parse_request(words: &[&str]) -> Result<Request, Unreadable> {
    Ok(match words {
        ["zero", range] => Request::Zero(blocks(range)?),
        ["discard", range] => Request::Discard(blocks(range)?),
        ["flush"] => Request::Flush,
        ["read", range] => Request::Read(blocks(range)?),
        [range, tag] => Request::Write(blocks(range)?, parse_tag(tag)?),
        _ => return Err(unreadable("request", &words.join(" "))),
    })
}

fn parse_mishap(words: &[&str]) -> Result<Mishap, Unreadable> {
    Ok(match words {
        ["fault", file, op, effect, "skip", skip, "times", times] => Mishap::Fault(Fault {
            op: parse_op(op)?,
            file: (*file).to_owned(),
            range: None,
            skip: number(skip)?,
            times: number(times)?,
            effect: parse_effect(effect)?,
        }),
        ["space", bytes] => Mishap::Space(number(bytes)?),
        ["heal"] => Mishap::Heal,
        ["kill"] => Mishap::Kill,
        ["power-cut"] => Mishap::PowerCut,
        ["lose", bytes] => Mishap::Lose(number(bytes)?),
        ["silence"] => Mishap::Silence,
        ["peer-dies"] => Mishap::PeerDies,
        ["hang", time] => Mishap::Hang(number(time)?),
        _ => return Err(unreadable("action", &words.join(" "))),
    })
}

/// `3` or `3-5`.
fn blocks(text: &str) -> Result<Range<usize>, Unreadable> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let last: usize = number(last)?;
    Ok(number(first)?..last.saturating_add(1))
}

/// A letter stands for itself, `#7` for 7.
fn parse_tag(text: &str) -> Result<Tag, Unreadable> {
    match (text.strip_prefix('#'), text.chars().next()) {
        (Some(digits), _) => number(digits),
        (None, Some(letter)) if text.len() == 1 => Ok(u32::from(letter)),
        _ => Err(unreadable("letter", text)),
    }
}

const OPS: [(&str, DiskOp); 6] = [
    ("open", DiskOp::Open),
    ("read", DiskOp::Read),
    ("write", DiskOp::Write),
    ("discard", DiskOp::Discard),
    ("sync", DiskOp::Sync),
    ("set-length", DiskOp::SetLength),
];

fn parse_op(text: &str) -> Result<DiskOp, Unreadable> {
    let known = OPS.iter().find(|(name, _)| *name == text);
    known
        .map(|(_, op)| *op)
        .ok_or_else(|| unreadable("disk operation", text))
}

fn parse_effect(text: &str) -> Result<Effect, Unreadable> {
    Ok(match text.split_once(':').unwrap_or((text, "")) {
        ("lie", _) => Effect::Lie,
        ("rot", _) => Effect::Rot,
        ("slow", ms) => Effect::Slow(Duration::from_millis(number(ms)?)),
        ("misdirect", bytes) => Effect::Misdirect(number(bytes)?),
        (errno, _) => Effect::Fail(number(errno)?),
    })
}

fn number<T: FromStr>(text: &str) -> Result<T, Unreadable> {
    text.parse().map_err(|_| unreadable("number", text))
}

fn unreadable(what: &str, text: &str) -> Unreadable {
    Unreadable(format!("'{text}' is no {what}"))
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.0.iter().map(Step::to_string).collect();
        f.write_str(&steps.join(" | "))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<String> = self.0.iter().map(Timed::to_string).collect();
        f.write_str(&actions.join(" & "))
    }
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            0 => write!(f, "{}", self.action),
            after => write!(f, "@{after} {}", self.action),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Request(Writer::Peer, request) => write!(f, "peer {request}"),
            Action::Request(Writer::Guest, request) => write!(f, "guest {request}"),
            Action::Command(command) => f.write_str(match command {
                Command::Start => "start",
                Command::Checkpoint => "checkpoint",
                Command::Stop => "stop",
                Command::Failover => "failover",
            }),
            Action::Settle => f.write_str("settle"),
            Action::Mishap(mishap) => write!(f, "{mishap}"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Write(blocks, tag) => {
                let letter = char::from_u32(*tag).filter(char::is_ascii_alphabetic);
                let tag = letter.map_or_else(|| format!("#{tag}"), |letter| letter.to_string());
                write!(f, "{} {tag}", Blocks(blocks))
            }
            Request::Zero(blocks) => write!(f, "zero {}", Blocks(blocks)),
            Request::Discard(blocks) => write!(f, "discard {}", Blocks(blocks)),
            Request::Flush => f.write_str("flush"),
            Request::Read(blocks) => write!(f, "read {}", Blocks(blocks)),
        }
    }
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mishap::Fault(fault) => {
                let op = OPS
                    .iter()
                    .find(|(_, op)| *op == fault.op)
                    .map_or("", |(name, _)| name);
                write!(f, "fault {} {op} {} ", fault.file, EffectText(fault.effect))?;
                write!(f, "skip {} times {}", fault.skip, fault.times)
            }
            Mishap::Space(bytes) => write!(f, "space {bytes}"),
            Mishap::Heal => f.write_str("heal"),
            Mishap::Kill => f.write_str("kill"),
            Mishap::PowerCut => f.write_str("power-cut"),
            Mishap::Lose(bytes) => write!(f, "lose {bytes}"),
            Mishap::Silence => f.write_str("silence"),
            Mishap::PeerDies => f.write_str("peer-dies"),
            Mishap::Hang(time) => write!(f, "hang {time}"),
        }
    }
}

/// `3` or `3-5`.
struct Blocks<'a>(&'a Range<usize>);

impl fmt::Display for Blocks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.0.end.saturating_sub(1);
        if last == self.0.start {
            write!(f, "{last}")
        } else {
            write!(f, "{}-{last}", self.0.start)
        }
    }
}

struct EffectText(Effect);

impl fmt::Display for EffectText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Effect::Fail(errno) => write!(f, "{errno}"),
            Effect::Slow(time) => write!(f, "slow:{}", time.as_millis()),
            Effect::Lie => f.write_str("lie"),
            Effect::Misdirect(bytes) => write!(f, "misdirect:{bytes}"),
            Effect::Rot => f.write_str("rot"),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_action_is_read_as_it_is_printed() {
        let text = "guest 0 G & @120 peer 1-3 #700 & peer zero 2 & guest discard 0-1 \
                    | peer flush | guest read 0-3 | start | checkpoint & stop | failover | settle \
                    | fault hidden write 28 skip 1 times 2 & fault disk sync lie skip 0 times 1 \
                    | fault active read rot skip 0 times 1 & fault disk write slow:5 skip 0 times 1 \
                    | fault disk write misdirect:512 skip 0 times 1 | space 4096 | heal | kill \
                    | power-cut | lose 100 | silence & hang 50 | peer-dies";
        let script: Script = text.parse().unwrap();
        assert_eq!(script.0.len(), 17);
        assert_eq!(script.to_string(), text);
    }

    #[test]
    fn nonsense_is_named() {
        let error = |text: &str| text.parse::<Script>().unwrap_err().to_string();
        assert_eq!(error("peer 1 P | dance"), "'dance' is no action");
        assert_eq!(error("peer x P"), "'x' is no number");
        assert_eq!(error("peer 1 PQ"), "'PQ' is no letter");
    }
}
