//! The `file` driver on real files, and against the other programs that lock them.

use super::{FileDriver, Options};
use crate::os;
use crate::ports::{Aio, File, FileInfo, FileOptions, Files, Ports};
use crate::testing::program::{Program, run};
use block::{
    ByteRange, Driver, Error, ErrorKind, Extent, Node, NodeOptions, Permissions, Shares,
    WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const PLAIN: WriteFlags = WriteFlags {
    fua: false,
    serialise: false,
};

/// A file of `length` bytes in a directory that goes with the guard.
fn image(length: u64) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(length).unwrap();
    (directory, path)
}

fn options(path: &Path) -> Options {
    Options {
        path: path.to_owned(),
        unmap: true,
        ..Options::default()
    }
}

/// Runs `test` on a `file` node opened with `options`.
fn on_node<Fut: Future<Output = ()>>(options: &Options, test: impl FnOnce(Rc<Node>) -> Fut) {
    os::run(|ports| async move {
        let driver = FileDriver::open(&ports, options).await.unwrap();
        let read_only = !driver.is_writable();
        let options = NodeOptions {
            read_only,
            ..NodeOptions::default()
        };
        test(Node::new("disk", Box::new(driver), options)).await;
    })
    .unwrap();
}

fn open_error(options: &Options) -> Error {
    let opened = os::run(|ports| async move { FileDriver::open(&ports, options).await.err() });
    opened.unwrap().expect("must be refused")
}

#[test]
fn a_buffered_request_is_answered_the_first_time_it_is_polled() {
    let (_directory, path) = image(1 << 20);
    on_node(&options(&path), |node| async move {
        let data = Bytes::from(vec![7; 4096]);
        let written = node.write(4096, data.clone(), PLAIN).now_or_never();
        assert_eq!(written, Some(Ok(())));
        let read = node.read(ByteRange::between(4096, 8192)).now_or_never();
        assert_eq!(read, Some(Ok(data)));
    });
}

//= docs/spec/replication.md#requests
//= type=test
//# A request that is not aligned to the driver's blocks MUST leave every byte outside its range as
//# it was.
#[test]
fn an_odd_sized_disk_under_direct_io_is_served_byte_by_byte_and_keeps_its_size() {
    let length = 10_000;
    for aio in [Aio::Threads, Aio::IoUring] {
        let (_directory, path) = image(length);
        let options = Options {
            direct: true,
            aio,
            ..options(&path)
        };
        on_node(&options, |node| async move {
            assert!(node.limits().request_alignment > 1);
            let data = Bytes::from(vec![7; 1001]);
            node.write(length - 1001, data.clone(), PLAIN)
                .await
                .unwrap();
            node.write(3, data.clone(), PLAIN).await.unwrap();
            let tail = ByteRange::between(length - 1001, length);
            assert_eq!(node.read(tail).await.unwrap(), data);
            node.write_zeroes(ByteRange::between(length - 1, length), ZeroFlags::default())
                .await
                .unwrap();
            node.flush().await.unwrap();
            let whole = ByteRange::between(0, length);
            let status = node.block_status(whole).await.unwrap();
            assert_eq!(status.last().unwrap().range.end(), length);
        });
        let mut expected = vec![0; 10_000];
        expected[3..1004].fill(7);
        expected[8999..9999].fill(7);
        assert!(std::fs::read(&path).unwrap() == expected);
    }
}

#[test]
fn a_discard_that_is_not_passed_on_changes_nothing() {
    let (_directory, path) = image(1 << 20);
    let options = Options {
        unmap: false,
        ..options(&path)
    };
    on_node(&options, |node| async move {
        let data = Bytes::from(vec![7; 65536]);
        node.write(0, data.clone(), PLAIN).await.unwrap();
        let range = ByteRange::between(0, 65536);
        node.discard(range).await.unwrap();
        assert_eq!(node.read(range).await.unwrap(), data);
        let flags = ZeroFlags {
            may_unmap: true,
            ..ZeroFlags::default()
        };
        node.write_zeroes(range, flags).await.unwrap();
        assert_eq!(node.read(range).await.unwrap(), vec![0; 65536]);
        node.flush().await.unwrap();
    });
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap());
    assert_eq!(blocks * 512, 65536, "nothing was given back");
}

#[test]
fn what_may_not_be_written_is_opened_read_only_if_that_is_allowed() {
    // The kernel refuses to open a running program for writing, to root as well.
    let program = std::env::current_exe().unwrap();
    let refused = open_error(&options(&program));
    assert_eq!(refused.errno(), libc::ETXTBSY);

    let (directory, path) = image(4096);
    let missing = directory.path().join("missing");
    let lenient = Options {
        auto_read_only: true,
        ..options(&missing)
    };
    let refused = open_error(&lenient);
    assert_eq!(refused.errno(), libc::ENOENT, "this is not about writing");
    on_node(
        &Options {
            read_only: true,
            ..options(&path)
        },
        |node| async move {
            let refused = node
                .write(0, Bytes::from_static(b"x"), PLAIN)
                .await
                .unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NotPermitted);
            assert_eq!(node.flush().await, Ok(()));
        },
    );
}

#[test]
fn a_device_opened_as_a_file_is_told_its_driver() {
    let (_directory, path) = image(4096);
    let wrong = Options {
        medium: super::Medium::HostDevice,
        ..options(&path)
    };
    let expected = format!(
        "'{}' is a regular file: use the driver 'file'",
        path.display()
    );
    assert_eq!(open_error(&wrong).message(), expected);
}

/// A host whose next flushes fail, or whose opening for writing is refused.
struct Faulty {
    files: Rc<dyn Files>,
    fail: Rc<Cell<Option<i32>>>,
    syncs: Rc<Cell<u32>>,
}

struct FaultyFile {
    file: Rc<dyn File>,
    fail: Rc<Cell<Option<i32>>>,
    syncs: Rc<Cell<u32>>,
}

impl Files for Faulty {
    fn open(&self, options: FileOptions) -> LocalBoxFuture<'_, io::Result<Rc<dyn File>>> {
        Box::pin(async move {
            if let Some(errno) = self.fail.get().filter(|_| options.writable) {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let file: Rc<dyn File> = Rc::new(FaultyFile {
                file: self.files.open(options).await?,
                fail: Rc::clone(&self.fail),
                syncs: Rc::clone(&self.syncs),
            });
            Ok(file)
        })
    }

    fn remove(&self, path: &Path) -> LocalBoxFuture<'_, io::Result<()>> {
        self.files.remove(path)
    }
}

impl File for FaultyFile {
    fn info(&self) -> FileInfo {
        self.file.info()
    }
    fn read_at(&self, offset: u64, length: usize) -> LocalBoxFuture<'_, io::Result<Bytes>> {
        self.file.read_at(offset, length)
    }
    fn write_at(&self, offset: u64, data: Bytes) -> LocalBoxFuture<'_, io::Result<()>> {
        self.file.write_at(offset, data)
    }
    fn zero(&self, range: ByteRange, may_unmap: bool) -> LocalBoxFuture<'_, io::Result<()>> {
        self.file.zero(range, may_unmap)
    }
    fn discard(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<()>> {
        self.file.discard(range)
    }
    fn sync(&self) -> LocalBoxFuture<'_, io::Result<()>> {
        self.syncs.set(self.syncs.get() + 1);
        let fail = self.fail.take();
        Box::pin(
            async move { fail.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno))) },
        )
    }
    fn set_length(&self, length: u64) -> LocalBoxFuture<'_, io::Result<()>> {
        self.file.set_length(length)
    }
    fn extents(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<Vec<Extent>>> {
        self.file.extents(range)
    }
    fn relock(&self, shares: Shares) -> LocalBoxFuture<'_, io::Result<()>> {
        self.file.relock(shares)
    }
    fn set_writable(&self, writable: bool) -> LocalBoxFuture<'_, io::Result<()>> {
        self.file.set_writable(writable)
    }
    fn allocated_bytes(&self) -> Option<u64> {
        self.file.allocated_bytes()
    }
}

/// Runs `test` on ports whose files fail with the number put into the cell, and count their syncs.
fn on_faulty_host<Fut: Future<Output = ()>>(
    test: impl FnOnce(Ports, Rc<Cell<Option<i32>>>, Rc<Cell<u32>>) -> Fut,
) {
    os::run(|ports| async move {
        let (fail, syncs) = (Rc::default(), Rc::default());
        let files = Rc::new(Faulty {
            files: Rc::clone(&ports.files),
            fail: Rc::clone(&fail),
            syncs: Rc::clone(&syncs),
        });
        test(Ports { files, ..ports }, fail, syncs).await;
    })
    .unwrap();
}

#[test]
fn a_failed_flush_poisons_the_node_until_the_file_is_opened_anew() {
    let (_directory, path) = image(4096);
    on_faulty_host(|ports, fail, _| async move {
        let open = async || {
            let driver = FileDriver::open(&ports, &options(&path)).await.unwrap();
            Node::new("disk", Box::new(driver), NodeOptions::default())
        };
        let node = open().await;
        let data = Bytes::from_static(b"new");
        node.write(0, data.clone(), PLAIN).await.unwrap();
        fail.set(Some(libc::EIO));
        let failed = node.flush().await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Poisoned);
        assert_eq!(failed.errno(), libc::EIO);
        // The host would say yes now; its yes is worth nothing.
        let again = node.flush().await.unwrap_err();
        assert_eq!(
            again.to_string(),
            "flush of 4096 bytes at offset 0 on node 'disk': node is poisoned by an earlier failed \
             flush: input/output error; close the node and add it again"
        );
        let refused = node.write(0, data.clone(), PLAIN).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned);
        let whole = ByteRange::between(0, 4096);
        let zeroed = node.write_zeroes(whole, ZeroFlags::default()).await;
        assert_eq!(zeroed.unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(
            node.discard(whole).await.unwrap_err().kind(),
            ErrorKind::Poisoned
        );
        assert_eq!(
            &node.read(ByteRange::between(0, 3)).await.unwrap()[..],
            b"new"
        );
        assert!(node.driver().close().await.is_err());

        let node = open().await;
        node.write(0, data, PLAIN).await.unwrap();
        node.flush().await.unwrap();
    });
}

#[test]
fn a_flush_reaches_the_host_only_if_something_changed() {
    let (_directory, path) = image(4096);
    on_faulty_host(|ports, _, syncs| async move {
        let driver = FileDriver::open(&ports, &options(&path)).await.unwrap();
        // What another program left in memory has to be made durable once.
        driver.flush().await.unwrap();
        driver.flush().await.unwrap();
        assert_eq!(syncs.get(), 1);
        driver
            .write(0, Bytes::from_static(b"x"), PLAIN)
            .await
            .unwrap();
        driver.flush().await.unwrap();
        driver.flush().await.unwrap();
        assert_eq!(syncs.get(), 2);
        // A write dropped half-way may have taken effect.
        drop(futures_util::poll!(driver.write(
            0,
            Bytes::from_static(b"y"),
            PLAIN
        )));
        driver.flush().await.unwrap();
        assert_eq!(syncs.get(), 3);
    });
}

#[test]
fn auto_read_only_gives_up_writing_where_it_is_not_allowed_only() {
    let (_directory, path) = image(4096);
    on_faulty_host(|ports, fail, _| async move {
        fail.set(Some(libc::EROFS));
        let strict = FileDriver::open(&ports, &options(&path)).await;
        assert_eq!(strict.err().unwrap().errno(), libc::EROFS);
        let lenient = Options {
            auto_read_only: true,
            ..options(&path)
        };
        let driver = FileDriver::open(&ports, &lenient).await.unwrap();
        assert!(!driver.is_writable());
        fail.set(Some(libc::EIO));
        let failed = FileDriver::open(&ports, &lenient).await;
        assert_eq!(failed.err().unwrap().errno(), libc::EIO);
    });
}

const WRITER: Shares = Shares {
    used: Permissions::ALL,
    shared: Permissions::CONSISTENT_READ,
};

/// What an export takes: it shares everything but the length.
fn exporting(writable: bool) -> Shares {
    let read = Permissions::CONSISTENT_READ;
    Shares {
        used: if writable {
            read | Permissions::WRITE
        } else {
            read
        },
        shared: !Permissions::RESIZE,
    }
}

fn locks_of(path: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let mut ours: Vec<String> = locks
        .lines()
        .filter_map(|line| Some(line.split_once(&inode)?.1.to_owned()))
        .collect();
    ours.sort();
    ours
}

/// The kernel's list is read in pieces and may miss a line while others take and drop locks: what
/// is held is what a later look shows as well.
#[track_caller]
fn holds(path: &Path, expected: &[&str]) {
    let mut seen = locks_of(path);
    for _ in 0..1000 {
        if seen == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
        seen = locks_of(path);
    }
    assert_eq!(seen, expected);
}

#[test]
fn qemu_cannot_write_an_image_that_is_ours_and_can_read_one_we_share() {
    let (_directory, path) = image(1 << 20);
    on_node(&options(&path), |node| async move {
        let locks = node.driver().capabilities().image_locks.unwrap();
        let file = path.to_str().unwrap();
        let write = || run("qemu-io", &["-f", "raw", "-c", "write 0 4k", file]);
        let read = || run("qemu-io", &["-r", "-f", "raw", "-c", "read 0 4k", file]);
        assert!(
            write().status.success(),
            "nothing is locked before anybody uses the node"
        );

        locks.permissions_changed(WRITER).await.unwrap();
        let refused = write();
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("Failed to get"), "{said}");
        assert!(read().status.success(), "a writer may let others read");
        let alone = Shares {
            shared: Permissions::NONE,
            ..WRITER
        };
        locks.permissions_changed(alone).await.unwrap();
        assert!(!read().status.success());

        locks.permissions_changed(exporting(false)).await.unwrap();
        assert!(read().status.success());
        locks.permissions_changed(exporting(true)).await.unwrap();
        let nothing = Shares {
            used: Permissions::NONE,
            shared: Permissions::ALL,
        };
        locks.permissions_changed(nothing).await.unwrap();
        assert!(write().status.success());
        holds(&path, &[]);
    });
}

#[test]
fn an_image_that_qemu_serves_is_locked_byte_for_byte_as_we_lock_it_and_refused_to_us() {
    for (read_only, used) in [(false, "100 101"), (true, "100 100")] {
        let (directory, path) = image(1 << 20);
        let socket = directory.path().join("s");
        let mut arguments = vec!["-t", "-f", "raw", "-k", socket.to_str().unwrap()];
        if read_only {
            arguments.push("-r");
        }
        arguments.push(path.to_str().unwrap());
        let server = Program::serving(&socket, "qemu-nbd", &arguments);
        let theirs = [used, "203 203"];
        holds(&path, &theirs);
        on_node(&options(&path), |node| async move {
            let locks = node.driver().capabilities().image_locks.unwrap();
            // What it does itself, it lets others do.
            locks
                .permissions_changed(exporting(!read_only))
                .await
                .unwrap();
            let refused = locks.permissions_changed(WRITER).await.unwrap_err();
            assert_eq!(refused.errno(), libc::EAGAIN);
            let message = refused.message();
            let expected = format!("image '{}' is in use: another program", path.display());
            assert!(message.starts_with(&expected), "{message}");
            drop(server);
            // What we hold after a refusal.
            holds(&path, &theirs);
            locks.permissions_changed(WRITER).await.unwrap();
        });
    }
}
