//! `blkdebug`: users' rules turned into the driver's.

use super::open::{Opening, Request, could_not_open};
use super::table::Opened;
use block::{ChildRole, Op};
use drivers::blkdebug::{Blkdebug, Event, Fault, Options, Rule, Transition};
use qmp::Error;
use qmp::types::{
    BlkdebugDelayRule, BlkdebugErrorRule, BlkdebugEvent, BlkdebugIoType, BlkdebugOptions,
    BlkdebugStateRule, BlkdebugTornRule,
};
use std::time::Duration;

/// EIO, the default of every rule.
const EIO: i32 = 5;

pub(super) async fn open(
    opening: &mut Opening<'_>,
    request: &Request<'_>,
    options: &BlkdebugOptions,
) -> Result<Opened, Error> {
    let image = opening.child(request, "image", ChildRole::Filtered, &options.image);
    let image = image.await?;
    let errors = options.inject_error.iter().flatten().map(error);
    let delays = options.delay.iter().flatten().map(delay);
    let torn = options.torn.iter().flatten().map(tear);
    let driver = Options {
        rules: delays.chain(torn).chain(errors).collect(),
        transitions: options.set_state.iter().flatten().map(transition).collect(),
        align: options.align.map(|align| align.0),
    };
    let driver = Blkdebug::new(image, driver, opening.nodes.ports.clone());
    let driver = driver.map_err(|error| could_not_open(&request.name, &error))?;
    Ok(Opened::new(driver))
}

fn error(rule: &BlkdebugErrorRule) -> Rule {
    let fault = Fault::Fail {
        errno: rule.errno.map_or(EIO, i32::from),
        immediately: rule.immediately.unwrap_or(false),
    };
    Rule {
        event: event(rule.event),
        ..of_all_kinds(fault, rule.state, rule.sector, (rule.once, rule.iotype))
    }
}

fn delay(rule: &BlkdebugDelayRule) -> Rule {
    let fault = Fault::Delay(Duration::from_nanos(rule.delay_ns));
    of_all_kinds(fault, rule.state, rule.sector, (rule.once, rule.iotype))
}

fn tear(rule: &BlkdebugTornRule) -> Rule {
    let fault = Fault::Tear {
        bytes: rule.bytes.0,
        errno: rule.errno.map_or(EIO, i32::from),
    };
    of_all_kinds(fault, rule.state, rule.sector, (rule.once, None))
}

fn of_all_kinds(
    fault: Fault,
    state: Option<u32>,
    sector: Option<u64>,
    (once, kind): (Option<bool>, Option<BlkdebugIoType>),
) -> Rule {
    let rule = Rule::new(fault);
    Rule {
        state,
        at: sector.map(|sector| sector.saturating_mul(512)),
        once: once.unwrap_or(false),
        ops: kind.map_or(rule.ops, |kind| vec![op(kind)]),
        ..rule
    }
}

fn transition(rule: &BlkdebugStateRule) -> Transition {
    Transition {
        event: event(rule.event),
        state: rule.state,
        new_state: rule.new_state,
    }
}

fn op(kind: BlkdebugIoType) -> Op {
    match kind {
        BlkdebugIoType::Read => Op::Read,
        BlkdebugIoType::Write => Op::Write,
        BlkdebugIoType::WriteZeroes => Op::WriteZeroes,
        BlkdebugIoType::Discard => Op::Discard,
        BlkdebugIoType::Flush => Op::Flush,
        BlkdebugIoType::BlockStatus => Op::BlockStatus,
    }
}

fn event(event: BlkdebugEvent) -> Event {
    match event {
        BlkdebugEvent::None => Event::Any,
        BlkdebugEvent::ReadAio => Event::Begins(Op::Read),
        BlkdebugEvent::WriteAio | BlkdebugEvent::Pwritev => Event::Begins(Op::Write),
        BlkdebugEvent::PwritevZero => Event::Begins(Op::WriteZeroes),
        BlkdebugEvent::FlushToOs | BlkdebugEvent::FlushToDisk => Event::Begins(Op::Flush),
    }
}
