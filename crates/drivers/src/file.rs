//! The `file` and `host_device` drivers: a disk in a regular file or a block device.
//!
//! Durability contract: a failed flush means that nobody knows what is on the medium, and that asking
//! again would lie. From then on the driver is *poisoned*: it refuses writes and flushes until a new
//! node opens the file. Reads go on.
//!
//! Locks: the image is locked as the permissions of the node's parents say ([`ImageLocks`]), so
//! that no other program opens it in a way that contradicts them.

use crate::host::block_error;
use crate::ports::{Aio, File, FileOptions, Locking, Ports};
use block::{
    Answer, Buffer, ByteRange, Capabilities, Driver, Error, ErrorKind, Extent, ImageLocks, Limits,
    PunchHole, Resize, Shares, WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// What clients should align to for speed, in bytes.
const PREFERRED_ALIGNMENT: u64 = 4096;

/// Which of the two drivers it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// `file`: a regular file.
    #[default]
    File,
    /// `host_device`: a block device.
    HostDevice,
}

/// Options of the drivers.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent options of the `file` driver, by their names"
)]
pub struct Options {
    /// Which of the two drivers.
    pub medium: Medium,
    /// `filename`.
    pub path: PathBuf,
    /// `read-only`.
    pub read_only: bool,
    /// `auto-read-only`: open read-only what cannot be opened writable.
    pub auto_read_only: bool,
    /// `cache.direct`.
    pub direct: bool,
    /// `cache.no-flush`.
    pub no_flush: bool,
    /// `aio`.
    pub aio: Aio,
    /// `locking`.
    pub locking: Locking,
    /// `discard` is `unmap`.
    pub unmap: bool,
}

/// A disk in a file or block device.
pub struct FileDriver {
    medium: Medium,
    file: Rc<dyn File>,
    writable: Cell<bool>,
    /// The flush that failed.
    poison: RefCell<Option<Error>>,
    changes: Cell<Changes>,
}

/// Counts changes, to know whether a flush has anything to do.
#[derive(Clone, Copy)]
struct Changes {
    /// How many there were.
    made: u64,
    /// How many of them a flush has covered.
    flushed: u64,
}

impl FileDriver {
    /// Opens the file. It is not locked until the graph says with what permissions.
    ///
    /// # Errors
    ///
    /// Names the file and what is wrong with it.
    pub async fn open(ports: &Ports, options: &Options) -> Result<FileDriver, Error> {
        let (file, writable) = open_as_far_as_allowed(ports, options).await?;
        check_medium(options, &*file)?;
        Ok(FileDriver {
            medium: options.medium,
            file,
            writable: Cell::new(writable),
            poison: RefCell::new(None),
            // What another program left unwritten in memory counts as a change.
            changes: Cell::new(Changes {
                made: 1,
                flushed: 0,
            }),
        })
    }

    /// Whether it could be, and was to be, opened writable.
    pub fn is_writable(&self) -> bool {
        self.writable.get()
    }

    /// The open file.
    pub fn file(&self) -> &Rc<dyn File> {
        &self.file
    }

    fn check_poison(&self) -> Result<(), Error> {
        match &*self.poison.borrow() {
            None => Ok(()),
            Some(cause) => Err(Error::with_message(
                ErrorKind::Poisoned,
                format!("{}; close the node and add it again", cause.message()),
            )),
        }
    }

    /// Runs something that changes the contents.
    async fn change(&self, call: impl Future<Output = io::Result<()>>) -> Result<(), Error> {
        self.check_poison()?;
        // Counted before, for those that are dropped half-way, and after, for flushes that ran meanwhile.
        self.count_change();
        let result = call.await;
        self.count_change();
        result.map_err(|error| block_error(&error))
    }

    fn count_change(&self) {
        let changes = self.changes.get();
        self.changes.set(Changes {
            made: changes.made.wrapping_add(1),
            ..changes
        });
    }

    async fn flush_changes(&self) -> Result<(), Error> {
        self.check_poison()?;
        let Changes { made, flushed } = self.changes.get();
        if made == flushed || !self.writable.get() {
            return Ok(());
        }
        let result = self.file.sync().await;
        // Another flush may have failed meanwhile and taken this one's data with it.
        self.check_poison()?;
        match result {
            Ok(()) => {
                self.note_flushed(made);
                Ok(())
            }
            Err(error) => {
                let error = block_error(&error);
                tracing::error!(%error, "a flush failed: nobody knows what is on the medium");
                self.poison.replace(Some(error));
                self.check_poison()
            }
        }
    }

    fn note_flushed(&self, made: u64) {
        let changes = self.changes.get();
        self.changes.set(Changes {
            flushed: changes.flushed.max(made),
            ..changes
        });
    }

    async fn read_padded(&self, range: ByteRange) -> Result<Bytes, Error> {
        let length = to_usize(range.length());
        let data = self.file.read_at(range.offset(), length).await;
        let data = data.map_err(|error| block_error(&error))?;
        if data.len() == length {
            return Ok(data);
        }
        let mut padded = Buffer::with_capacity(length);
        padded.fill(&data);
        padded.fill_zeroes(length);
        Ok(padded.freeze())
    }

    /// The part of a range that lies within the file.
    fn within(&self, range: ByteRange) -> ByteRange {
        range.intersection(ByteRange::between(0, self.file.info().length))
    }
}

async fn open_as_far_as_allowed(
    ports: &Ports,
    options: &Options,
) -> Result<(Rc<dyn File>, bool), Error> {
    let wanted = FileOptions {
        path: options.path.clone(),
        writable: !options.read_only,
        direct: options.direct,
        no_flush: options.no_flush,
        aio: options.aio,
        locking: options.locking,
        shares: None,
        unmap: options.unmap,
        create: false,
    };
    let writable = wanted.writable;
    match ports.files.open(wanted.clone()).await {
        Ok(file) => Ok((file, writable)),
        Err(error) => {
            let error = block_error(&error);
            if error.kind() != ErrorKind::NotPermitted || !writable || !options.auto_read_only {
                return Err(error);
            }
            let wanted = FileOptions {
                writable: false,
                ..wanted
            };
            let file = ports.files.open(wanted).await;
            Ok((file.map_err(|error| block_error(&error))?, false))
        }
    }
}

fn check_medium(options: &Options, file: &dyn File) -> Result<(), Error> {
    let path = options.path.display();
    let message = match (options.medium, file.info().is_device) {
        (Medium::File, false) | (Medium::HostDevice, true) => return Ok(()),
        (Medium::File, true) => {
            format!("'{path}' is a block device: use the driver 'host_device'")
        }
        (Medium::HostDevice, false) => {
            format!("'{path}' is a regular file: use the driver 'file'")
        }
    };
    Err(Error::with_message(ErrorKind::InvalidRequest, message))
}

impl Driver for FileDriver {
    fn name(&self) -> &'static str {
        match self.medium {
            Medium::File => "file",
            Medium::HostDevice => "host_device",
        }
    }

    fn limits(&self) -> Limits {
        let info = self.file.info();
        Limits {
            request_alignment: info.alignment,
            preferred_alignment: info.alignment.max(PREFERRED_ALIGNMENT),
            ..Limits::of_length(info.length)
        }
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        Box::pin(self.read_padded(range))
    }

    fn write(&self, offset: u64, mut data: Bytes, _flags: WriteFlags) -> Answer<'_, ()> {
        // Padding past the end of the file stays out of it.
        let within = self.file.info().length.saturating_sub(offset);
        data.truncate(to_usize(within));
        Box::pin(self.change(self.file.write_at(offset, data)))
    }

    fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Answer<'_, ()> {
        Box::pin(self.change(self.file.zero(self.within(range), flags.may_unmap)))
    }

    fn discard(&self, range: ByteRange) -> Answer<'_, ()> {
        Box::pin(self.change(self.file.discard(self.within(range))))
    }

    fn flush(&self) -> Answer<'_, ()> {
        Box::pin(self.flush_changes())
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        Box::pin(async move {
            let extents = self.file.extents(range).await;
            extents.map_err(|error| block_error(&error))
        })
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            image_locks: Some(self),
            punch_hole: Some(self),
            resize: Some(self),
            ..Capabilities::default()
        }
    }

    fn set_writable(&self, writable: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            if writable == self.writable.get() {
                return Ok(());
            }
            if !writable {
                self.flush_changes().await?;
            }
            let reopened = self.file.set_writable(writable).await;
            reopened.map_err(|error| block_error(&error))?;
            self.writable.set(writable);
            Ok(())
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(self.flush_changes())
    }
}

impl ImageLocks for FileDriver {
    fn permissions_changed(&self, shares: Shares) -> Answer<'_, ()> {
        Box::pin(async move {
            let locked = self.file.relock(shares).await;
            locked.map_err(|error| block_error(&error))
        })
    }
}

impl PunchHole for FileDriver {
    fn punch_hole(&self, range: ByteRange) -> Answer<'_, ()> {
        Box::pin(self.change(self.file.punch_hole(self.within(range))))
    }
}

impl Resize for FileDriver {
    fn resize(&self, length: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.file.info().is_device {
                let message = "a block device has the length it has";
                return Err(Error::with_message(ErrorKind::Unsupported, message));
            }
            self.change(self.file.set_length(length)).await
        })
    }
}

/// A length that memory was or can be asked for.
fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
