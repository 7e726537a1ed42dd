//! The `nbd` driver against `qemu-nbd` and `nbdkit`, against their death, and against silence.

use super::{Nbd, Options};
use crate::os;
use crate::ports::{Address, Listener, Network, Ports, Stream};
use crate::testing::World;
use crate::testing::program::Program;
use block::{
    Buffer, ByteRange, Error, ErrorKind, Extent, Node, NodeOptions, WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, join, join_all, pending};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const PLAIN: WriteFlags = WriteFlags {
    fua: false,
    serialise: false,
};
const FUA: WriteFlags = WriteFlags {
    fua: true,
    serialise: false,
};

/// A directory with an image and a place for a socket.
struct Place {
    _directory: tempfile::TempDir,
    image: PathBuf,
    socket: PathBuf,
}

impl Place {
    fn new(length: u64) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("a.raw");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(length)
            .unwrap();
        Place {
            image,
            socket: directory.path().join("s"),
            _directory: directory,
        }
    }

    /// Serves the image with `qemu-nbd`.
    fn qemu(&self, more: &[&str]) -> Program {
        let socket = self.socket.to_str().unwrap();
        let mut arguments = vec!["-t", "-e", "8", "-f", "raw", "-k", socket];
        arguments.extend(["--discard=unmap", "--detect-zeroes=off"]);
        arguments.extend(more);
        arguments.push(self.image.to_str().unwrap());
        Program::serving(&self.socket, "qemu-nbd", &arguments)
    }

    /// Serves memory with `nbdkit` behind filters.
    fn nbdkit(&self, more: &[&str]) -> Program {
        let socket = self.socket.to_str().unwrap();
        let mut arguments = vec!["-f", "-U", socket];
        arguments.extend(more);
        Program::serving(&self.socket, "nbdkit", &arguments)
    }

    fn options(&self) -> Options {
        at(&self.socket)
    }
}

fn at(socket: &Path) -> Options {
    Options {
        server: Address::Unix(socket.to_owned()),
        export: String::new(),
        reconnect_delay: Duration::ZERO,
        open_timeout: Duration::ZERO,
        read_only: false,
        auto_read_only: false,
    }
}

fn patient(place: &Place) -> Options {
    Options {
        reconnect_delay: Duration::from_mins(1),
        ..place.options()
    }
}

async fn open(ports: &Ports, options: Options) -> Rc<Node> {
    let driver = Nbd::open(ports, options).await.unwrap();
    Node::new("nbd0", Box::new(driver), NodeOptions::default())
}

fn run<Fut: Future<Output = ()>>(test: impl FnOnce(Ports) -> Fut) {
    os::run(test).unwrap();
}

fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length)
        .map(|i| u8::try_from(i % 251).unwrap().wrapping_add(seed))
        .collect()
}

#[test]
fn every_request_reaches_qemu_nbd_and_comes_back() {
    let place = Place::new(1 << 20);
    let _server = place.qemu(&[]);
    run(|ports| async move {
        let node = open(&ports, place.options()).await;
        assert_eq!(node.length(), 1 << 20);
        let data = pattern(200_001, 7);
        node.write(12_345, data.clone(), FUA).await.unwrap();
        let range = ByteRange::between(12_345, 212_346);
        assert_eq!(node.read(range).await.unwrap(), data);
        let zeroed = ByteRange::between(65536, 131_072);
        let unmap = ZeroFlags {
            may_unmap: true,
            ..ZeroFlags::default()
        };
        node.write_zeroes(zeroed, unmap).await.unwrap();
        assert_eq!(node.read(zeroed).await.unwrap(), vec![0; 65536]);
        node.flush().await.unwrap();
        node.discard(ByteRange::between(0, 65536)).await.unwrap();
        let status = node.block_status(ByteRange::between(0, 1 << 20)).await;
        assert_eq!(
            status.unwrap(),
            [
                Extent::hole(ByteRange::between(0, 131_072)),
                Extent::data(ByteRange::between(131_072, 212_992)),
                Extent::hole(ByteRange::between(212_992, 1 << 20)),
            ]
        );
        node.driver().close().await.unwrap();
        assert_eq!(Nbd::of(&node).unwrap().lost_requests(), 0);
        assert!(std::fs::read(&place.image).unwrap()[131_072..212_346] == data[118_727..]);
    });
}

#[test]
fn a_thousand_large_and_small_requests_share_one_connection() {
    let place = Place::new(0);
    let _server = place.nbdkit(&["--filter=delay", "memory", "64M", "rdelay=2ms"]);
    run(|ports| async move {
        let node = open(&ports, place.options()).await;
        let sizes = |i: u64| if i.is_multiple_of(50) { 65536 } else { 512 };
        let writes = (0..1000_u64).map(|i| {
            let data = pattern(sizes(i), u8::try_from(i % 256).unwrap());
            node.write(i * 65536, data, PLAIN)
        });
        for result in join_all(writes).await {
            result.unwrap();
        }
        let reads = (0..1000_u64).map(|i| {
            let length = u64::try_from(sizes(i)).unwrap();
            node.read(ByteRange::between(i * 65536, i * 65536 + length))
        });
        for (i, data) in (0..).zip(join_all(reads).await) {
            assert!(data.unwrap() == pattern(sizes(i), u8::try_from(i % 256).unwrap()));
        }
    });
}

#[test]
fn the_servers_errors_keep_their_number() {
    for (word, errno) in [("EIO", 5), ("ENOSPC", 28), ("EPERM", 1)] {
        let place = Place::new(0);
        let failing = format!("error-pwrite={word}");
        let _server = place.nbdkit(&[
            "--filter=error",
            "memory",
            "1M",
            &failing,
            "error-pwrite-rate=100%",
        ]);
        run(|ports| async move {
            let node = open(&ports, place.options()).await;
            let failed = node.write(512, pattern(512, 1), PLAIN).await.unwrap_err();
            assert_eq!(failed.errno(), errno, "{failed}");
            let context = "write of 512 bytes at offset 512 on node 'nbd0': ";
            assert!(failed.to_string().starts_with(context), "{failed}");
            node.read(ByteRange::between(0, 512)).await.unwrap();
            let nbd = Nbd::of(&node).unwrap();
            assert_eq!(nbd.lost_requests(), 0, "an answer is not a loss");
        });
    }
}

#[test]
fn without_a_delay_a_dead_server_fails_requests_at_once_and_they_are_counted() {
    let place = Place::new(1 << 20);
    let server = place.qemu(&[]);
    run(|ports| async move {
        let node = open(&ports, place.options()).await;
        node.write(0, pattern(4096, 1), PLAIN).await.unwrap();
        server.signal("STOP");
        let reads = (0..3_u64).map(|i| node.read(ByteRange::between(i, i + 1)));
        let kill = async { drop(server) };
        let (results, ()) = join(join_all(reads), kill).await;
        for result in results {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, 5), "{error}");
        }
        let nbd = Nbd::of(&node).unwrap();
        assert_eq!(nbd.lost_requests(), 3);
        assert!(nbd.first_loss().unwrap().message().contains("lost"));
        let down = node.read(ByteRange::between(0, 1)).await.unwrap_err();
        assert!(
            down.message().starts_with("NBD server unix socket '"),
            "{down}"
        );
        assert_eq!(nbd.lost_requests(), 3, "what was never sent is not lost");

        // It comes back by itself; but what was not flushed may be gone.
        let _server = place.qemu(&[]);
        while node.read(ByteRange::between(0, 1)).await.is_err() {
            ports.runtime.sleep(Duration::from_millis(10)).await;
        }
        let doubtful = node.flush().await.unwrap_err();
        assert_eq!(
            doubtful.message(),
            "the connection was lost after writes that had not been flushed: the server may have \
             forgotten them"
        );
        assert_eq!(node.flush().await, Ok(()), "it has been said");
    });
}

#[test]
fn with_a_delay_requests_wait_for_the_server_and_are_sent_again() {
    let place = Place::new(1 << 20);
    let server = place.qemu(&[]);
    run(|ports| async move {
        let node = open(&ports, patient(&place)).await;
        server.signal("STOP");
        let before = node.write(0, pattern(4096, 1), PLAIN);
        let outage = async {
            drop(server);
            ports.runtime.sleep(Duration::from_millis(20)).await;
            let after = node.write(4096, pattern(4096, 2), PLAIN);
            let back = async { place.qemu(&[]) };
            let (after, server) = join(after, back).await;
            after.unwrap();
            server
        };
        let (before, _server) = join(before, outage).await;
        before.unwrap();
        let read = node.read(ByteRange::between(0, 8192)).await.unwrap();
        assert!(read == [pattern(4096, 1), pattern(4096, 2)].concat());
        assert_eq!(Nbd::of(&node).unwrap().lost_requests(), 0);
        node.flush().await.unwrap();
    });
}

#[test]
fn an_export_that_has_changed_is_not_taken_for_the_old_one() {
    let place = Place::new(1 << 20);
    let server = place.qemu(&[]);
    run(|ports| async move {
        let node = open(&ports, patient(&place)).await;
        drop(server);
        let image = std::fs::OpenOptions::new().write(true).open(&place.image);
        image.unwrap().set_len(1 << 19).unwrap();
        let _server = place.qemu(&[]);
        let read = node.read(ByteRange::between(0, 1));
        let limit = ports.runtime.sleep(Duration::from_millis(500));
        let read = futures_util::future::select(Box::pin(read), limit).await;
        assert!(
            matches!(read, futures_util::future::Either::Right(_)),
            "it waits"
        );
    });
}

#[test]
fn yank_fails_what_waits_for_a_silent_server_and_ends_the_connection_for_good() {
    for options in [Place::options, patient] {
        let place = Place::new(1 << 20);
        let server = place.qemu(&[]);
        run(|ports| async move {
            let node = open(&ports, options(&place)).await;
            server.signal("STOP");
            let cut = async {
                ports.runtime.sleep(Duration::from_millis(5)).await;
                node.driver().capabilities().yank.unwrap().yank();
            };
            let (read, ()) = join(node.read(ByteRange::between(0, 1)), cut).await;
            assert_eq!(read.unwrap_err().errno(), 5);
            server.signal("CONT");
            let after = node.read(ByteRange::between(0, 1)).await.unwrap_err();
            assert_eq!(after.message(), "the connection was cut by 'yank'");
        });
    }
}

async fn refused(ports: &Ports, options: Options) -> Error {
    Nbd::open(ports, options)
        .await
        .err()
        .expect("must be refused")
}

#[test]
fn what_cannot_be_opened_is_refused_with_the_reason() {
    run(|ports| async move {
        let place = Place::new(1 << 20);
        let nobody = refused(&ports, place.options()).await;
        assert_eq!(
            nobody.message(),
            format!(
                "cannot connect to unix socket '{}': no such file or directory",
                place.socket.display()
            )
        );
        let server = place.qemu(&["-x", "disk", "-r"]);
        let unknown = refused(&ports, place.options()).await;
        let expected = format!(
            "NBD server unix socket '{}': the server refused the export",
            place.socket.display()
        );
        assert!(unknown.message().starts_with(&expected), "{unknown}");
        let disk = Options {
            export: "disk".into(),
            ..place.options()
        };
        let read_only = refused(&ports, disk.clone()).await;
        assert_eq!(read_only.message(), "the export 'disk' is read-only");
        assert_eq!(read_only.kind(), ErrorKind::NotPermitted);
        let lenient = Options {
            auto_read_only: true,
            ..disk
        };
        let node = open(&ports, lenient).await;
        assert!(!Nbd::of(&node).unwrap().is_writable());
        drop(server);
        let long = Options {
            export: "x".repeat(5000),
            ..place.options()
        };
        let long = refused(&ports, long).await;
        assert_eq!(long.message(), "an export name has at most 4096 bytes");
    });
}

#[test]
fn opening_waits_for_a_server_as_long_as_it_was_told() {
    run(|ports| async move {
        let place = Place::new(1 << 20);
        let options = Options {
            open_timeout: Duration::from_mins(1),
            ..place.options()
        };
        let late = async {
            ports.runtime.sleep(Duration::from_millis(150)).await;
            place.qemu(&[])
        };
        let (node, _server) = join(open(&ports, options), late).await;
        node.read(ByteRange::between(0, 1)).await.unwrap();
    });
}

/// A server that takes connections and says nothing.
struct Silence;

impl Network for Silence {
    fn connect(&self, _: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Stream>>> {
        Box::pin(async {
            let stream: Rc<dyn Stream> = Rc::new(Silence);
            Ok(stream)
        })
    }
    fn listen(&self, _: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Listener>>> {
        Box::pin(pending())
    }
}

impl Stream for Silence {
    fn read(&self, _: Buffer) -> LocalBoxFuture<'_, io::Result<Buffer>> {
        Box::pin(pending())
    }
    fn write(&self, _: Vec<Bytes>) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(pending())
    }
    fn shutdown(&self) {}
}

#[test]
fn a_server_that_says_nothing_is_given_up_after_ten_seconds() {
    let world = World::new(1);
    let ports = Ports {
        network: Rc::new(Silence),
        ..world.ports()
    };
    let start = ports.runtime.now();
    let inner = ports.clone();
    let refused = world.run(async move { refused(&inner, at(Path::new("/s"))).await });
    assert_eq!(refused.kind(), ErrorKind::TimedOut);
    assert_eq!(
        refused.message(),
        "NBD server unix socket '/s' has not answered within 10s"
    );
    assert_eq!(
        ports.runtime.now(),
        start.saturating_add(Duration::from_secs(10))
    );
}
