//! Whether a request may be carried out: one pure function, in the order of the protocol's rules.
//! The server answers with the error; the client does not even send what would get one.
//!
//! Source: NBD protocol, "Request types", "Command flags", "Error values", "Size constraints".

use crate::Errno;
use crate::wire::TransmissionFlags as Can;
use crate::wire::{BlockSizes, CommandCode, CommandFlags, ContextSet, RequestHeader};
use block::ByteRange;

/// What client and server agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) size: u64,
    pub(crate) flags: Can,
    pub(crate) block_sizes: BlockSizes,
    pub(crate) contexts: ContextSet,
    pub(crate) structured: bool,
}

/// Whether the command changes the export's contents.
pub(crate) fn modifies(command: CommandCode) -> bool {
    matches!(
        command,
        CommandCode::Write | CommandCode::Trim | CommandCode::WriteZeroes
    )
}

/// Why a request is refused: the error, and the rule it breaks.
pub(crate) type Rejection = (Errno, &'static str);

/// The range of a request that may be carried out.
pub(crate) fn check(header: &RequestHeader, agreed: &Agreed) -> Result<ByteRange, Rejection> {
    offered(header.command, agreed)?;
    flags(header, agreed)?;
    if header.command == CommandCode::Flush {
        return match (header.offset, header.length) {
            (0, 0) => Ok(ByteRange::between(0, 0)),
            _ => Err((Errno::Inval, "a flush has neither offset nor length")),
        };
    }
    range(header, agreed)
}

/// Whether the export can do this at all.
fn offered(command: CommandCode, agreed: &Agreed) -> Result<(), Rejection> {
    if modifies(command) && agreed.flags.contains(Can::READ_ONLY) {
        return Err((Errno::Perm, "the export is read-only"));
    }
    let offered = match command {
        CommandCode::Read | CommandCode::Write | CommandCode::Disc => true,
        CommandCode::Flush => agreed.flags.contains(Can::SEND_FLUSH),
        CommandCode::Trim => agreed.flags.contains(Can::SEND_TRIM),
        CommandCode::Cache => agreed.flags.contains(Can::SEND_CACHE),
        CommandCode::WriteZeroes => agreed.flags.contains(Can::SEND_WRITE_ZEROES),
        CommandCode::BlockStatus if agreed.contexts.is_empty() => {
            return Err((Errno::Inval, "no metadata context was selected"));
        }
        CommandCode::BlockStatus => true,
        CommandCode::Unknown(_) => return Err((Errno::Inval, "unknown command")),
    };
    if offered {
        Ok(())
    } else {
        Err((Errno::Inval, "the export does not offer this command"))
    }
}

/// Whether every flag belongs to this command and was offered.
fn flags(header: &RequestHeader, agreed: &Agreed) -> Result<(), Rejection> {
    let offered = |can: Can, flag: CommandFlags| {
        if agreed.flags.contains(can) {
            flag
        } else {
            CommandFlags::NONE
        }
    };
    // FUA is accepted with every command, because clients exist that set it on all.
    let everywhere = offered(Can::SEND_FUA, CommandFlags::FUA);
    let here = match header.command {
        CommandCode::Read => offered(Can::SEND_DF, CommandFlags::DF),
        CommandCode::WriteZeroes => {
            CommandFlags::NO_HOLE | offered(Can::SEND_FAST_ZERO, CommandFlags::FAST_ZERO)
        }
        CommandCode::BlockStatus => CommandFlags::REQ_ONE,
        CommandCode::Write
        | CommandCode::Disc
        | CommandCode::Flush
        | CommandCode::Trim
        | CommandCode::Cache
        | CommandCode::Unknown(_) => CommandFlags::NONE,
    };
    if header.flags.exceeds(everywhere | here) {
        return Err((
            Errno::Inval,
            "a flag is set that this command or export does not take",
        ));
    }
    Ok(())
}

/// Whether the range lies in the export, is aligned and not too long.
fn range(header: &RequestHeader, agreed: &Agreed) -> Result<ByteRange, Rejection> {
    let grows = matches!(
        header.command,
        CommandCode::Write | CommandCode::WriteZeroes
    );
    let past_the_end = if grows { Errno::NoSpc } else { Errno::Inval };
    let range = ByteRange::new(header.offset, u64::from(header.length))
        .filter(|range| range.end() <= agreed.size)
        .ok_or((past_the_end, "past the end of the export"))?;
    if !range.is_aligned(u64::from(agreed.block_sizes.minimum())) {
        return Err((Errno::Inval, "not aligned to the minimum block size"));
    }
    if header.command == CommandCode::Read && header.length > agreed.block_sizes.maximum() {
        // The protocol knows EOVERFLOW for structured replies only.
        let errno = if agreed.structured {
            Errno::Overflow
        } else {
            Errno::Inval
        };
        return Err((errno, "longer than the maximum payload"));
    }
    if header.command == CommandCode::BlockStatus && range.is_empty() {
        return Err((Errno::Inval, "a block status needs a length"));
    }
    Ok(range)
}
