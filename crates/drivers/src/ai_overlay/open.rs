//! Opening an overlay, and making one of an empty file.

use super::flush::{Flusher, NO_HEADER};
use super::format::{HEADERS, Header, HeaderSlot, Layout, PAGE, Slot};
use super::map::Map;
use super::{AiOverlay, Core, Durable, State};
use crate::ports::Ports;
use block::{ByteRange, Child, Error, ErrorKind, Node, OverlayStage, RangeLock, is_zero};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How much of a file is read at once, in bytes.
const READ: u64 = 1 << 20;

impl AiOverlay {
    /// Opens the overlay kept in `file` over `backing`. An empty or all-zero file becomes an empty
    /// overlay; a file in our format is opened; any other is refused. One that replication was
    /// using when it was last left opens for inspection only.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if the file is something else, is damaged, or belongs to a disk
    /// of another length; [`ErrorKind::Unsupported`] if a later version wrote it.
    pub async fn open(
        file: Rc<Child>,
        backing: Rc<Child>,
        ports: Ports,
    ) -> Result<AiOverlay, Error> {
        let layout = Layout::of_length(backing.length())?;
        let node = file.node()?;
        let found = find_header(&node).await?;
        let (map, state, slot) = if let Some((slot, header)) = found {
            check_lengths(&node, &layout, &header)?;
            let map = load_map(&node, layout, &header).await?;
            (map, State::found(&header), slot)
        } else {
            //= docs/spec/ai-overlay.md#opening
            //# An empty or all-zero file MUST become an empty overlay, and a file that is neither
            //# that nor an overlay MUST be refused by its node's name.
            check_zero(&node).await?;
            let map = Map::new(layout, ports.random.identity(), 1, 0);
            (map, State::new(), NO_HEADER)
        };
        let core = Rc::new(Core {
            ports,
            file,
            backing,
            layout,
            order: RangeLock::new(),
            map: RefCell::new(map),
            state,
            flusher: Flusher::default(),
            header_slot: Cell::new(slot),
            reclaiming: Cell::new(false),
        });
        if found.is_none() && core.file_is_writable() {
            core.initialise().await?;
        }
        Ok(AiOverlay { core })
    }
}

impl Core {
    pub(super) fn file_is_writable(&self) -> bool {
        self.file.node().is_ok_and(|node| !node.is_read_only())
    }

    /// Makes an overlay of an empty file.
    pub(super) async fn initialise(&self) -> Result<(), Error> {
        let node = self.file.node()?;
        grow(&node, self.layout.file_length()).await?;
        let first = Durable {
            epoch: self.map.borrow().epoch(),
            stage: OverlayStage::Clean,
        };
        self.write_header(first).await?;
        node.flush().await?;
        self.state.durable.set(Some(first));
        Ok(())
    }
}

impl State {
    fn new() -> State {
        State {
            stage: Cell::new(OverlayStage::Clean),
            durable: Cell::new(None),
            unflushed: Cell::new(false),
            poisoned: Cell::new(false),
            closing: Cell::new(false),
        }
    }

    fn found(header: &Header) -> State {
        let state = State::new();
        //= docs/spec/ai-overlay.md#opening
        //# An overlay that is found replicating MUST open with contents unknown: it can be read,
        //# and everything that would change it fails.
        let unknown = header.stage == OverlayStage::Replicating;
        state.stage.set(if unknown {
            OverlayStage::ContentsUnknown
        } else {
            header.stage
        });
        state.durable.set(Some(Durable {
            epoch: header.epoch,
            stage: header.stage,
        }));
        state
    }
}

/// The newest header and its slot; none if both slots are empty.
async fn find_header(node: &Node) -> Result<Option<(Slot, Header)>, Error> {
    let length = node.length();
    if length < HEADERS {
        return Ok(None);
    }
    let bytes = node.read(ByteRange::between(0, HEADERS)).await?;
    let (a, b) = bytes.split_at(to_usize(PAGE));
    let newest = match (Header::parse(a)?, Header::parse(b)?) {
        (HeaderSlot::Valid(a), HeaderSlot::Valid(b)) if a.sequence > b.sequence => (Slot::A, a),
        (_, HeaderSlot::Valid(b)) => (Slot::B, b),
        (HeaderSlot::Valid(a), _) => (Slot::A, a),
        (HeaderSlot::Empty, HeaderSlot::Empty) => return Ok(None),
        (_, _) => return Err(foreign(node)),
    };
    Ok(Some(newest))
}

fn check_lengths(node: &Node, layout: &Layout, header: &Header) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::with_message(ErrorKind::InvalidRequest, message));
    //= docs/spec/ai-overlay.md#opening
    //# An overlay made for a disk of another length MUST be refused with both lengths.
    if header.length != layout.length {
        let (ours, theirs) = (header.length, layout.length);
        return refuse(format!(
            "the overlay was made for a disk of {ours} bytes, its backing node has {theirs}"
        ));
    }
    //= docs/spec/ai-overlay.md#opening
    //# Nothing in the file MUST make the program read, write or allocate beyond what the length of
    //# the disk asks for.
    let (needed, length) = (layout.file_length(), node.length());
    if length < needed {
        let name = node.name();
        return refuse(format!(
            "the overlay's file '{name}' was cut off: it has {length} bytes instead of {needed}"
        ));
    }
    Ok(())
}

async fn load_map(node: &Node, layout: Layout, header: &Header) -> Result<Map, Error> {
    let mut map = Map::new(layout, header.identity, header.epoch, header.sequence);
    let pair = 2 * PAGE;
    let whole = layout.map();
    for part in parts_with_data(node, whole).await? {
        // Both slots of a page together.
        let start = block::align_down(part.offset(), pair);
        let end = part.end().next_multiple_of(pair).min(whole.end());
        for piece in ByteRange::between(start, end).pieces(READ) {
            let bytes = node.read(piece).await?;
            let first = piece.offset().saturating_sub(HEADERS) / pair;
            for (page, slots) in (first..).zip(bytes.chunks_exact(to_usize(pair))) {
                let (a, b) = slots.split_at(to_usize(PAGE));
                map.load(page, [a, b]);
            }
        }
    }
    map.check_numbers()?;
    Ok(map)
}

/// Fails unless the whole file is zero.
async fn check_zero(node: &Node) -> Result<(), Error> {
    let whole = ByteRange::between(0, node.length());
    for part in parts_with_data(node, whole).await? {
        for piece in part.pieces(READ) {
            if !is_zero(&node.read(piece).await?) {
                return Err(foreign(node));
            }
        }
    }
    Ok(())
}

/// The parts of `range` that may be something else than zeroes.
async fn parts_with_data(node: &Node, range: ByteRange) -> Result<Vec<ByteRange>, Error> {
    let mut parts = Vec::new();
    let mut rest = range;
    while !rest.is_empty() {
        let extents = node.block_status(rest).await?;
        let end = extents.last().map_or(rest.end(), |last| last.range.end());
        if extents.is_empty() {
            parts.push(rest);
        }
        parts.extend(extents.iter().filter(|e| !e.zero).map(|e| e.range));
        rest = ByteRange::between(end, range.end());
    }
    Ok(parts)
}

/// Makes the file at least `length` bytes long.
async fn grow(node: &Node, length: u64) -> Result<(), Error> {
    let have = node.length();
    if have >= length {
        return Ok(());
    }
    if let Some(resize) = node.driver().capabilities().resize {
        return resize.resize(length).await;
    }
    let name = node.name();
    let message =
        format!("the overlay needs {length} bytes, but '{name}' has {have} and cannot grow");
    Err(Error::with_message(ErrorKind::NoSpace, message))
}

fn foreign(node: &Node) -> Error {
    let name = node.name();
    let message = format!("'{name}' holds something else than an overlay: give an empty file");
    Error::with_message(ErrorKind::InvalidRequest, message)
}

fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
