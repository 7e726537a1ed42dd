//! Files of the host, in every way they are read and written.

use super::HostFiles;
use crate::os::pool::Pool;
use crate::os::{self, Shared};
use crate::ports::{Aio, File, FileOptions, Files, Locking, Ports};
use block::{ByteRange, Extent, Permissions, Shares};
use bytes::Bytes;
use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A file of `length` bytes in a directory of its own; the directory goes with the guard.
fn image(length: u64) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(length).unwrap();
    (directory, path)
}

fn writable(path: &Path) -> FileOptions {
    FileOptions {
        path: path.to_owned(),
        writable: true,
        unmap: true,
        ..FileOptions::default()
    }
}

/// Runs `test` on `path` opened in every way: buffered, direct, by ring and by pool.
fn in_every_way<Fut: Future<Output = ()>>(length: u64, test: impl Fn(Rc<dyn File>) -> Fut) {
    for (direct, aio) in [
        (false, Aio::Threads),
        (false, Aio::IoUring),
        (true, Aio::Threads),
        (true, Aio::IoUring),
    ] {
        let (_directory, path) = image(length);
        let options = FileOptions {
            direct,
            aio,
            ..writable(&path)
        };
        let test = &test;
        os::run(|ports| async move {
            let file = ports.files.open(options).await.unwrap();
            test(file).await;
        })
        .unwrap();
    }
}

fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length)
        .map(|i| u8::try_from(i % 251).unwrap().wrapping_add(seed))
        .collect()
}

fn error_of(path: &Path, options: FileOptions) -> io::Error {
    assert_eq!(options.path, path);
    let opened = os::run(|ports: Ports| async move { ports.files.open(options).await.err() });
    opened.unwrap().expect("must be refused")
}

#[test]
fn what_is_written_is_read_back_however_the_file_is_open() {
    in_every_way(1 << 20, |file| async move {
        let data = pattern(65536, 3);
        // A slice that starts at an odd address must be moved before direct I/O takes it.
        let odd = Bytes::from([b"x", &data[..]].concat()).slice(1..);
        file.write_at(8192, odd).await.unwrap();
        assert_eq!(file.read_at(8192, 65536).await.unwrap(), data);
        assert_eq!(file.read_at(0, 8192).await.unwrap(), vec![0; 8192]);
        file.sync().await.unwrap();
        assert_eq!(file.info().length, 1 << 20);
    });
}

#[test]
fn an_odd_sized_file_is_served_to_its_last_byte_and_never_grows() {
    let length = 4096 * 3 + 700;
    in_every_way(length, move |file| async move {
        let data = pattern(4096 + 700, 9);
        file.write_at(8192, data.clone()).await.unwrap();
        assert_eq!(file.info().length, length);
        let read = file.read_at(8192, 8192).await.unwrap();
        assert_eq!(read, data, "short only because the file ends");
    });
}

#[test]
fn many_operations_are_in_flight_at_once() {
    in_every_way(16 << 20, |file| async move {
        let writes = (0..600_u64).map(|i| {
            let data = pattern(4096, u8::try_from(i % 256).unwrap());
            file.write_at(i * 4096, data)
        });
        futures_util::future::try_join_all(writes).await.unwrap();
        let reads = (0..600_u64).map(|i| file.read_at(i * 4096, 4096));
        let read = futures_util::future::try_join_all(reads).await.unwrap();
        for (i, data) in (0..).zip(read) {
            assert_eq!(data, pattern(4096, u8::try_from(i % 256).unwrap()), "{i}");
        }
    });
}

#[test]
fn an_operation_whose_answer_is_dropped_runs_on_with_its_memory() {
    in_every_way(1 << 20, |file| async move {
        for _ in 0..50 {
            let write = file.write_at(0, pattern(65536, 1));
            let read = file.read_at(0, 65536);
            // Polled once, so that the kernel has them, then dropped.
            let _ = futures_util::poll!(write);
            let _ = futures_util::poll!(read);
            tokio::task::yield_now().await;
        }
        file.write_at(0, pattern(65536, 2)).await.unwrap();
        file.sync().await.unwrap();
    });
}

#[test]
fn a_task_that_reads_on_and_on_lets_the_others_run() {
    let (_directory, path) = image(4096);
    os::run(|ports| async move {
        let file = ports.files.open(writable(&path)).await.unwrap();
        file.read_at(0, 4096).await.unwrap();
        let others = Rc::new(Cell::new(0_u32));
        let counter = Rc::clone(&others);
        let task = ports.runtime.spawn(Box::pin(async move {
            loop {
                counter.set(counter.get() + 1);
                tokio::task::yield_now().await;
            }
        }));
        for _ in 0..10_000 {
            file.read_at(0, 4096).await.unwrap();
        }
        task.abort();
        assert!(others.get() > 10, "{}", others.get());
    })
    .unwrap();
}

#[test]
fn a_long_transfer_is_whole_whether_more_is_expected_or_not() {
    let (_directory, path) = image(8 << 20);
    os::run(|ports| async move {
        let file = ports.files.open(writable(&path)).await.unwrap();
        for (more, length, seed) in [(false, 1 << 20, 1), (true, 1 << 20, 2), (false, 5 << 20, 3)] {
            ports.files.expect_more(more);
            let data = pattern(length, seed);
            file.write_at(4096, data.clone()).await.unwrap();
            assert_eq!(file.read_at(4096, length).await.unwrap(), data);
        }
    })
    .unwrap();
}

#[test]
fn without_a_ring_the_pool_does_its_work() {
    let (_directory, path) = image(1 << 20);
    let options = FileOptions {
        direct: true,
        aio: Aio::IoUring,
        ..writable(&path)
    };
    os::run(|_| async move {
        let shared = Rc::new(Shared {
            pool: Pool::new(),
            ring: OnceCell::from(None),
            backlog: Cell::default(),
        });
        let file = HostFiles::new(shared).open(options).await.unwrap();
        let data = pattern(65536, 4);
        file.write_at(4096, data.clone()).await.unwrap();
        assert_eq!(file.read_at(4096, 65536).await.unwrap(), data);
    })
    .unwrap();
}

#[test]
fn zeroed_and_discarded_ranges_read_as_zeroes_and_become_holes() {
    in_every_way(1 << 20, |file| async move {
        let whole = ByteRange::between(0, 1 << 20);
        file.write_at(0, pattern(1 << 20, 5)).await.unwrap();
        assert_eq!(file.extents(whole).await.unwrap(), [Extent::data(whole)]);

        let zeroed = ByteRange::between(65536, 131_072);
        file.zero(zeroed, true).await.unwrap();
        assert_eq!(file.read_at(65536, 65536).await.unwrap(), vec![0; 65536]);
        file.discard(ByteRange::between(131_072, 196_608))
            .await
            .unwrap();
        let hole = ByteRange::between(65536, 196_608);
        let extents = file.extents(whole).await.unwrap();
        assert_eq!(
            extents,
            [
                Extent::data(ByteRange::between(0, 65536)),
                Extent::hole(hole),
                Extent::data(ByteRange::between(196_608, 1 << 20)),
            ]
        );
        file.zero(ByteRange::between(0, 65536), false)
            .await
            .unwrap();
        assert_eq!(file.read_at(0, 65536).await.unwrap(), vec![0; 65536]);
    });
}

#[test]
fn known_data_is_told_again_without_asking_and_forgotten_when_it_goes() {
    in_every_way(1 << 20, |file| async move {
        let half = ByteRange::between(0, 1 << 19);
        file.write_at(0, pattern(1 << 20, 5)).await.unwrap();
        assert_eq!(file.extents(half).await.unwrap(), [Extent::data(half)]);
        let upper = ByteRange::between(1 << 19, 1 << 20);
        assert_eq!(file.extents(upper).await.unwrap(), [Extent::data(upper)]);
        file.discard(upper).await.unwrap();
        assert_eq!(file.extents(upper).await.unwrap(), [Extent::hole(upper)]);
    });
}

#[test]
fn a_file_grows_shrinks_and_changes_between_writable_and_not() {
    in_every_way(8192, |file| async move {
        file.set_length(10_000).await.unwrap();
        assert_eq!(file.info().length, 10_000);
        file.write_at(8192, pattern(10_000 - 8192, 1))
            .await
            .unwrap();
        file.set_length(4096).await.unwrap();
        assert_eq!(file.read_at(0, 8192).await.unwrap().len(), 4096);

        file.set_writable(false).await.unwrap();
        let refused = file.write_at(0, pattern(4096, 1)).await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        file.set_writable(true).await.unwrap();
        file.write_at(0, pattern(4096, 1)).await.unwrap();
    });
}

#[test]
fn what_is_no_disk_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let refused = error_of(directory.path(), writable(directory.path())).to_string();
    assert!(
        refused.ends_with("it is a directory; a disk is a regular file or a block device"),
        "{refused}"
    );
    let missing = directory.path().join("missing.raw");
    let refused = error_of(&missing, writable(&missing));
    assert_eq!(
        refused.to_string(),
        format!(
            "cannot open '{}': no such file or directory",
            missing.display()
        )
    );
    assert_eq!(crate::host::errno_of(&refused), Some(libc::ENOENT));
}

/// What a user with these permissions takes, leaving `shared` to others.
fn shares(used: Permissions, shared: Permissions) -> Shares {
    Shares { used, shared }
}

#[test]
fn two_writers_exclude_each_other_until_one_lets_go() {
    let (_directory, path) = image(1 << 20);
    let writer = shares(
        Permissions::CONSISTENT_READ | Permissions::WRITE,
        Permissions::CONSISTENT_READ,
    );
    os::run(|ports| async move {
        let first = ports.files.open(FileOptions {
            shares: Some(writer),
            locking: Locking::On,
            ..writable(&path)
        });
        let first = first.await.unwrap();
        let second = ports.files.open(writable(&path)).await.unwrap();
        let refused = second.relock(writer).await.unwrap_err();
        assert_eq!(crate::host::errno_of(&refused), Some(libc::EAGAIN));
        assert!(
            refused.to_string().contains("does not let others write"),
            "{refused}"
        );
        // Reading is allowed: the writer shares it, and the reader shares writing.
        let reader = shares(Permissions::CONSISTENT_READ, Permissions::ALL);
        second.relock(reader).await.unwrap();
        // But not a reader that wants nobody to write.
        let strict = shares(Permissions::CONSISTENT_READ, Permissions::CONSISTENT_READ);
        let refused = second.relock(strict).await.unwrap_err();
        assert!(
            refused.to_string().contains("uses it to write"),
            "{refused}"
        );

        first.set_writable(false).await.unwrap();
        assert!(
            second.relock(writer).await.is_err(),
            "reopening keeps the locks"
        );
        drop(first);
        second.relock(writer).await.unwrap();
    })
    .unwrap();
}
