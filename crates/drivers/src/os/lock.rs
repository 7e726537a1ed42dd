//! Image locks, as QEMU takes them, so that two programs never write one image by mistake.
//!
//! ```text
//! byte   100   101    102              103     |  200 .. 203
//!        read  write  write-unchanged  resize  |  the same, *not* shared with others
//! ```
//!
//! Read locks on byte ranges, tied to the open file (`F_OFD_SETLK`): byte `100 + i` while
//! permission `i` is in use, byte `200 + i` while others must not use it. Who wants permission `i`
//! asks whether anybody holds `200 + i`; who does not share it, whether anybody holds `100 + i`.
//! Nobody ever holds a write lock: it is only probed for. The locks go with the file's last reference.

#![expect(
    unsafe_code,
    reason = "there is no safe wrapper of fcntl's open-file-description locks"
)]

use crate::host::host_error;
use crate::ports::Locking;
use block::{Permissions, Shares};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// First byte of the permissions in use.
const USED: i64 = 100;
/// First byte of the permissions not shared.
const UNSHARED: i64 = 200;
/// The permissions in the order of their bytes.
const ORDER: [Permissions; 4] = [
    Permissions::CONSISTENT_READ,
    Permissions::WRITE,
    Permissions::WRITE_UNCHANGED,
    Permissions::RESIZE,
];

/// The lock on one image, held through a descriptor of its own.
#[derive(Debug)]
pub(super) struct ImageLock {
    file: OwnedFd,
    path: PathBuf,
    mode: Locking,
    held: Mutex<Held>,
}

/// What is locked at present.
#[derive(Clone, Copy, Debug)]
struct Held {
    shares: Shares,
    /// The file system has no such locks.
    unavailable: bool,
}

/// Nothing used, everything shared: no byte is locked.
const NOTHING: Shares = Shares {
    used: Permissions::NONE,
    shared: Permissions::ALL,
};

impl ImageLock {
    /// A lock on `file` that holds nothing yet. `path` is only named in errors.
    pub(super) fn new(file: OwnedFd, path: PathBuf, mode: Locking) -> ImageLock {
        let held = Held {
            shares: NOTHING,
            unavailable: mode == Locking::Off,
        };
        ImageLock {
            file,
            path,
            mode,
            held: Mutex::new(held),
        }
    }

    /// Moves to `wanted`. On failure the old locks are held as before.
    pub(super) fn change(&self, wanted: Shares) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.unavailable {
            return Ok(());
        }
        let old = held.shares;
        match self.take(old, wanted) {
            Ok(()) => {
                held.shares = wanted;
                self.release(wanted)
            }
            Err(error) if self.mode == Locking::Auto && is_unavailable(&error) => {
                tracing::warn!(image = %self.path.display(), %error, "image locks are not to be had");
                held.unavailable = true;
                Ok(())
            }
            Err(error) => {
                let _ = self.release(old);
                Err(error)
            }
        }
    }

    /// Locks all bytes of `wanted`, then looks whether anybody objects. In this order two
    /// programs that start at once may both be refused, but never both succeed.
    fn take(&self, old: Shares, wanted: Shares) -> io::Result<()> {
        for (offset, permission) in (0..).zip(ORDER) {
            if wanted.used.contains(permission) && !old.used.contains(permission) {
                self.lock(permission, USED.saturating_add(offset))?;
            }
            if !wanted.shared.contains(permission) && old.shared.contains(permission) {
                self.lock(permission, UNSHARED.saturating_add(offset))?;
            }
        }
        for (offset, permission) in (0..).zip(ORDER) {
            if wanted.used.contains(permission)
                && self.is_locked_by_others(UNSHARED.saturating_add(offset))?
            {
                return Err(self.conflict(permission, "does not let others"));
            }
            if !wanted.shared.contains(permission)
                && self.is_locked_by_others(USED.saturating_add(offset))?
            {
                return Err(self.conflict(permission, "uses it to"));
            }
        }
        Ok(())
    }

    /// Unlocks every byte that `kept` does not need.
    fn release(&self, kept: Shares) -> io::Result<()> {
        for (offset, permission) in (0..).zip(ORDER) {
            if !kept.used.contains(permission) {
                self.set(libc::F_UNLCK, USED.saturating_add(offset))?;
            }
            if kept.shared.contains(permission) {
                self.set(libc::F_UNLCK, UNSHARED.saturating_add(offset))?;
            }
        }
        Ok(())
    }

    fn conflict(&self, permission: Permissions, how: &str) -> io::Error {
        let path = self.path.display();
        let verb = match permission {
            Permissions::CONSISTENT_READ => "read",
            Permissions::RESIZE => "resize",
            _ => "write",
        };
        let message = format!(
            "image '{path}' is in use: another program (a virtual machine, qemu-nbd, a second \
             daemon) {how} {verb}; stop it, or open the image in a way both allow"
        );
        host_error(libc::EAGAIN, message)
    }

    fn lock(&self, permission: Permissions, byte: i64) -> io::Result<()> {
        self.set(libc::F_RDLCK, byte)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => {
                    self.conflict(permission, "has locked it against all who want to")
                }
                _ => error,
            })
    }

    fn set(&self, kind: i32, byte: i64) -> io::Result<()> {
        self.call(libc::F_OFD_SETLK, kind, byte).map(|_| ())
    }

    fn is_locked_by_others(&self, byte: i64) -> io::Result<bool> {
        let found = self.call(libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
        Ok(i32::from(found.l_type) != libc::F_UNLCK)
    }

    fn call(&self, command: i32, kind: i32, byte: i64) -> io::Result<libc::flock> {
        let mut lock = libc::flock {
            l_type: libc::c_short::try_from(kind).unwrap_or_default(),
            l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open for as long as `self` lives, and `lock` is a valid `flock`
        // that outlives the call; the kernel writes nothing else.
        let result = unsafe { libc::fcntl(self.file.as_raw_fd(), command, &raw mut lock) };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(lock)
    }
}

/// Whether the file system has no such locks (rather than refusing this one).
fn is_unavailable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP)
    )
}
