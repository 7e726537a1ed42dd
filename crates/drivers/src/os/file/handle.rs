//! Opening: what kind of file it is, what it demands, and the descriptors that hold it.

use crate::host::{explain, host_error};
use crate::os::lock::ImageLock;
use crate::ports::{FileOptions, Locking};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatxFlags, fstat, fstatfs, ioctl_blksszget, open, seek, stat,
    statx,
};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// The file system type of memory-backed files.
const TMPFS: i64 = 0x0102_1994;
/// What direct I/O is aligned to where nothing says otherwise, in bytes.
const CAUTIOUS_ALIGNMENT: u64 = 4096;

/// An open descriptor. Operations in flight share it, and with it the image's lock: both go when
/// the last of them has ended.
#[derive(Debug)]
pub(in crate::os) struct Handle {
    fd: OwnedFd,
    lock: Arc<ImageLock>,
    /// Offsets and lengths must be multiples of this, in bytes.
    alignment: usize,
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What does not change while a file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traits {
    /// A block device, else a regular file.
    pub(super) is_device: bool,
    /// All of it is memory: nothing ever blocks.
    pub(super) in_memory: bool,
    /// Offsets and lengths must be multiples of this, in bytes.
    pub(super) alignment: u64,
    /// Memory must be aligned to this, in bytes.
    pub(super) memory_alignment: usize,
}

/// A file just opened.
pub(super) struct Opened {
    pub(super) handle: Handle,
    /// For the unaligned end of a file that is otherwise read and written directly.
    pub(super) tail: Option<Handle>,
    pub(super) traits: Traits,
    pub(super) length: u64,
}

/// Opens the file and takes the locks asked for. May block.
pub(super) fn open_file(options: &FileOptions) -> io::Result<Opened> {
    let path = options.path.as_path();
    check_type(path, options.create)?;
    let direct = if options.direct {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    let create = if options.create {
        OFlags::CREATE
    } else {
        OFlags::empty()
    };
    let flags = access(options.writable) | direct | create | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| open_error(path, error, options))?;
    let is_device = FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::BlockDevice;
    let lock = lock_of(&fd, options)?;
    if let Some(shares) = options.shares {
        lock.change(shares)?;
    }
    let traits = Traits {
        is_device,
        in_memory: fstatfs(&fd)?.f_type == TMPFS && !is_device,
        ..alignment_of(&fd, options.direct, is_device)
    };
    // A file without a length (of /proc, for example) is no disk either.
    let length = seek(&fd, rustix::fs::SeekFrom::End(0));
    let length = length.map_err(|error| cannot_open(path, error))?;
    let handle = Handle {
        fd,
        lock,
        alignment: usize::try_from(traits.alignment).unwrap_or(usize::MAX),
    };
    let tail = if length.is_multiple_of(traits.alignment) {
        None
    } else {
        Some(reopen_buffered(&handle, options.writable)?)
    };
    Ok(Opened {
        handle,
        tail,
        traits,
        length,
    })
}

/// Another descriptor of the same file, for the same kind of I/O, under the same lock. May block.
pub(super) fn reopen(handle: &Handle, writable: bool) -> io::Result<Handle> {
    let direct = if handle.alignment == 1 {
        OFlags::empty()
    } else {
        OFlags::DIRECT
    };
    let fd = reopen_fd(&handle.fd, access(writable) | direct | OFlags::CLOEXEC)?;
    Ok(Handle {
        fd,
        lock: Arc::clone(&handle.lock),
        alignment: handle.alignment,
    })
}

/// As [`reopen`], but through the page cache, where nothing need be aligned.
pub(super) fn reopen_buffered(handle: &Handle, writable: bool) -> io::Result<Handle> {
    let fd = reopen_fd(&handle.fd, access(writable) | OFlags::CLOEXEC)?;
    Ok(Handle {
        fd,
        lock: Arc::clone(&handle.lock),
        alignment: 1,
    })
}

impl Handle {
    /// Whether a transfer of which `done` bytes are done can go on. Under direct I/O it ends at an
    /// unaligned place only because the file ends there, and the kernel refuses to go on.
    pub(super) fn may_go_on_at(&self, done: usize) -> bool {
        done.is_multiple_of(self.alignment)
    }

    /// The lock on the image.
    pub(super) fn lock(&self) -> &ImageLock {
        &self.lock
    }
}

fn access(writable: bool) -> OFlags {
    if writable {
        OFlags::RDWR
    } else {
        OFlags::RDONLY
    }
}

/// Refuses what is no disk. A fifo must not even be opened: that would wait for its other end.
fn check_type(path: &Path, create: bool) -> io::Result<()> {
    let found = match stat(path) {
        Err(Errno::NOENT) if create => return Ok(()),
        Err(error) => return Err(cannot_open(path, error)),
        Ok(found) => FileType::from_raw_mode(found.st_mode),
    };
    let is = match found {
        FileType::RegularFile | FileType::BlockDevice => return Ok(()),
        FileType::Directory => "a directory",
        FileType::CharacterDevice => "a character device",
        FileType::Socket => "a socket",
        FileType::Fifo => "a pipe",
        FileType::Symlink | FileType::Unknown => "something unknown",
    };
    let message = format!(
        "cannot open '{}': it is {is}; a disk is a regular file or a block device",
        path.display()
    );
    Err(host_error(Errno::INVAL.raw_os_error(), message))
}

fn open_error(path: &Path, error: Errno, options: &FileOptions) -> io::Error {
    if error == Errno::INVAL && options.direct {
        let message = format!(
            "cannot open '{}': its file system has no direct I/O; use cache.direct=off",
            path.display()
        );
        return host_error(error.raw_os_error(), message);
    }
    cannot_open(path, error)
}

fn cannot_open(path: &Path, error: Errno) -> io::Error {
    explain(
        &error.into(),
        format_args!("cannot open '{}'", path.display()),
    )
}

/// The lock lives on a descriptor of its own, so that it survives reopening the data's.
fn lock_of(fd: &OwnedFd, options: &FileOptions) -> io::Result<Arc<ImageLock>> {
    let lock_fd = if options.locking == Locking::Off {
        fd.try_clone()?
    } else {
        reopen_fd(fd, OFlags::RDONLY | OFlags::CLOEXEC)?
    };
    Ok(Arc::new(ImageLock::new(
        lock_fd,
        options.path.clone(),
        options.locking,
    )))
}

/// Opens the very same file again, whatever its path leads to by now.
fn reopen_fd(fd: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(path.as_str(), flags, Mode::empty()).map_err(|error| {
        explain(
            &error.into(),
            "cannot reopen the file (through /proc/self/fd)",
        )
    })
}

fn alignment_of(fd: &OwnedFd, direct: bool, is_device: bool) -> Traits {
    let buffered = Traits {
        is_device,
        in_memory: false,
        alignment: 1,
        memory_alignment: 1,
    };
    if !direct {
        return buffered;
    }
    let told = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|told| told.stx_dio_offset_align != 0)
        .map(|told| {
            (
                u64::from(told.stx_dio_offset_align),
                u64::from(told.stx_dio_mem_align),
            )
        });
    let sector = || is_device.then(|| ioctl_blksszget(fd).ok()).flatten();
    let (offset, memory) = told
        .or_else(|| sector().map(|size| (u64::from(size), u64::from(size))))
        .unwrap_or((CAUTIOUS_ALIGNMENT, CAUTIOUS_ALIGNMENT));
    Traits {
        alignment: offset,
        memory_alignment: usize::try_from(memory.max(1)).unwrap_or(usize::MAX),
        ..buffered
    }
}
