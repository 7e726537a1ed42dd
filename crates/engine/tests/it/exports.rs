//! Exports and the NBD server, seen by our own client and by bare sockets.

use crate::support::{Daemon, Dir, run};
use block::Buffer;
use drivers::ports::{Address, Stream};
use engine::Options;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;

/// A daemon with node `disk` of 0x11, a server, and a client daemon.
async fn served(dir: &Dir, options: Options) -> (Daemon, String) {
    let daemon = dir.daemon_with(options);
    let image = daemon.image("disk.raw", 0x11);
    let options = json!({ "driver": "file", "node-name": "disk", "filename": image });
    daemon.ok("blockdev-add", options).await;
    let socket = daemon.serve("nbd.sock").await;
    (daemon, socket)
}

fn client_options(name: &str, socket: &str, export: &str) -> Value {
    json!({
        "driver": "nbd", "node-name": name, "export": export,
        "server": { "type": "unix", "path": socket },
    })
}

async fn connect(daemon: &Daemon, socket: &str) -> Rc<dyn Stream> {
    let address = Address::Unix(socket.into());
    daemon.ports.network.connect(&address).await.unwrap()
}

#[test]
fn a_client_reads_what_it_wrote() {
    run(async |dir| {
        let (server, socket) = served(&dir, Options::default()).await;
        server.export("e", "disk", true).await;
        let client = dir.daemon();
        client
            .ok("blockdev-add", client_options("c", &socket, "e"))
            .await;
        client.expect("c", 0x11, (0, 4)).await;
        client.write("c", 0x22, (1, 3)).await;
        assert_eq!(client.io("c", "write -q -z 0 1M").await, "");
        assert_eq!(client.io("c", "flush").await, "");
        assert_eq!(client.view("c").await, "00 22 22 11");
        assert_eq!(server.view("disk").await, "00 22 22 11");
    });
}

#[test]
fn an_export_that_is_used_goes_only_by_force_and_says_so() {
    run(async |dir| {
        let (server, socket) = served(&dir, Options::default()).await;
        server.export("e", "disk", true).await;
        let client = dir.daemon();
        client
            .ok("blockdev-add", client_options("c", &socket, "e"))
            .await;
        let error = server.err("block-export-del", json!({ "id": "e" })).await;
        assert_eq!(error, "export 'e' still in use");
        server.events();
        server
            .ok("block-export-del", json!({ "id": "e", "mode": "hard" }))
            .await;
        assert_eq!(server.events(), [r#"BLOCK_EXPORT_DELETED {"id":"e"}"#]);
        assert_eq!(server.ok("query-block-exports", json!({})).await, json!([]));
        assert!(client.io("c", "read 0 512").await.contains("failed"));
        server
            .ok("blockdev-del", json!({ "node-name": "disk" }))
            .await;
    });
}

#[test]
fn mistakes_are_named() {
    run(async |dir| {
        let (server, _) = served(&dir, Options::default()).await;
        server.export("e", "disk", false).await;
        let add = |id: &str, name: &str, node: &str| json!({ "type": "nbd", "id": id, "name": name, "node-name": node });
        for (arguments, said) in [
            (
                add("e", "x", "disk"),
                "Block export id 'e' is already in use",
            ),
            (
                add("x", "e", "disk"),
                "NBD server already has export named 'e'",
            ),
            (
                add("x", "x", "no"),
                "Cannot find device='no' nor node-name='no'",
            ),
        ] {
            assert_eq!(server.err("block-export-add", arguments).await, said);
        }
        let error = server.err("block-export-del", json!({ "id": "x" })).await;
        assert_eq!(error, "Export 'x' is not found");
        server.ok("nbd-server-stop", json!({})).await;
        let error = server.err("nbd-server-stop", json!({})).await;
        assert_eq!(error, "NBD server not running");
        let error = server.err("block-export-add", add("x", "x", "disk")).await;
        assert_eq!(error, "NBD server not running");
    });
}

#[test]
fn the_old_commands_serve_too() {
    run(async |dir| {
        let (server, socket) = served(&dir, Options::default()).await;
        server
            .ok(
                "nbd-server-add",
                json!({ "device": "disk", "writable": true }),
            )
            .await;
        let client = dir.daemon();
        client
            .ok("blockdev-add", client_options("c", &socket, "disk"))
            .await;
        client.write("c", 0x33, (0, 1)).await;
        client.ok("blockdev-del", json!({ "node-name": "c" })).await;
        let exports = server.ok("query-block-exports", json!({})).await;
        assert_eq!(
            exports,
            json!([{
                "id": "disk", "type": "nbd", "node-name": "disk", "shutting-down": false,
            }])
        );
        server
            .ok(
                "nbd-server-remove",
                json!({ "name": "disk", "mode": "hard" }),
            )
            .await;
    });
}

#[test]
fn a_client_that_is_one_too_many_waits_for_a_place() {
    run(async |dir| {
        let options = Options {
            connections: 1,
            ..Options::default()
        };
        let (server, socket) = served(&dir, options).await;
        server.export("e", "disk", false).await;
        let first = connect(&server, &socket).await;
        let second = connect(&server, &socket).await;
        let runtime = Rc::clone(&server.ports.runtime);
        let greeting = second.read(Buffer::with_capacity(18));
        let waited =
            futures_util::future::select(greeting, runtime.sleep(Duration::from_millis(50)));
        let futures_util::future::Either::Right(((), greeting)) = waited.await else {
            panic!("the second client was served beside the first");
        };
        first.shutdown();
        assert_eq!(greeting.await.unwrap().len(), 18);
    });
}

#[test]
fn a_client_that_stalls_in_the_handshake_is_cut_off() {
    run(async |dir| {
        let mut options = Options::default();
        options.nbd.handshake = Duration::from_millis(20);
        let (server, socket) = served(&dir, options).await;
        let client = connect(&server, &socket).await;
        let mut read = 0;
        loop {
            let buffer = client.read(Buffer::with_capacity(64)).await.unwrap();
            if buffer.is_empty() {
                break;
            }
            read += buffer.len();
        }
        assert_eq!(read, 18, "the greeting and nothing else");
    });
}

#[test]
fn garbage_ends_its_own_connection_only() {
    run(async |dir| {
        let (server, socket) = served(&dir, Options::default()).await;
        server.export("e", "disk", true).await;
        let client = dir.daemon();
        client
            .ok("blockdev-add", client_options("c", &socket, "e"))
            .await;
        let garbage = connect(&server, &socket).await;
        garbage.write(vec![vec![0xA5; 4096].into()]).await.unwrap();
        loop {
            match garbage.read(Buffer::with_capacity(64)).await {
                Ok(buffer) if !buffer.is_empty() => {}
                _ => break,
            }
        }
        client.write("c", 0x22, (0, 1)).await;
        client.expect("c", 0x22, (0, 1)).await;
    });
}

#[test]
fn a_server_that_was_stopped_leaves_its_address_free() {
    run(async |dir| {
        let (server, socket) = served(&dir, Options::default()).await;
        for _ in 0..3 {
            server.ok("nbd-server-stop", json!({})).await;
            assert!(!std::fs::exists(&socket).unwrap());
            server.serve("nbd.sock").await;
        }
    });
}

/// The bytes of an option.
fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let header = [b"IHAVEOPT", &code.to_be_bytes()[..], &length.to_be_bytes()];
    [&header.concat(), data].concat()
}

/// The bytes of a request without a payload.
fn request(command: u16, offset: u64, length: u32) -> Vec<u8> {
    let head = [&0x2560_9513_u32.to_be_bytes()[..], &[0, 0]].concat();
    let command = [&command.to_be_bytes()[..], &[0; 8]].concat();
    let range = [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat();
    [head, command, range].concat()
}

async fn read_exactly(stream: &Rc<dyn Stream>, length: usize) -> Vec<u8> {
    let mut buffer = Buffer::with_capacity(length);
    while buffer.len() < length {
        let before = buffer.len();
        buffer = stream.read(buffer).await.unwrap();
        assert!(
            buffer.len() > before,
            "the server has gone after {before} bytes"
        );
    }
    buffer.filled().to_vec()
}

/// A connection that uses an export, by `NBD_OPT_EXPORT_NAME`.
async fn transmission(daemon: &Daemon, socket: &str, export: &str) -> Rc<dyn Stream> {
    let stream = connect(daemon, socket).await;
    let hello = [&3_u32.to_be_bytes()[..], &option(1, export.as_bytes())].concat();
    stream.write(vec![hello.into()]).await.unwrap();
    read_exactly(&stream, 18 + 10).await;
    stream
}

#[test]
fn a_client_that_never_reads_keeps_its_place_no_longer_than_the_handshake() {
    run(async |dir| {
        let mut options = Options {
            connections: 1,
            close: Duration::from_millis(20),
            ..Options::default()
        };
        options.nbd.handshake = Duration::from_millis(20);
        let (server, socket) = served(&dir, options).await;
        server.export("e", "disk", false).await;
        let deaf = connect(&server, &socket).await;
        let flood = [&3_u32.to_be_bytes()[..], &option(3, b"").repeat(1_000_000)].concat();
        let flood = deaf.write(vec![flood.into()]);
        let second = connect(&server, &socket).await;
        // The flood ends when the server cuts it off.
        let (flooded, greeting) =
            futures_util::future::join(flood, read_exactly(&second, 18)).await;
        assert!(flooded.is_err());
        assert_eq!(&greeting[..8], b"NBDMAGIC");
    });
}

#[test]
fn a_request_to_cache_reads_no_more_than_a_read_may() {
    run(async |dir| {
        let daemon = dir.daemon();
        let rule = |sector: u64| {
            json!({
                "driver": "blkdebug", "node-name": "disk",
                "image": { "driver": "null-co", "size": 64 << 20 },
                "inject-error": [{ "event": "none", "iotype": "read", "errno": 5, "sector": sector }],
            })
        };
        for (sector, errno) in [((32 << 20) / 512, 0), ((32 << 20) / 512 - 1, 5)] {
            daemon.ok("blockdev-add", rule(sector)).await;
            let socket = daemon.serve("nbd.sock").await;
            daemon.export("e", "disk", false).await;
            let client = transmission(&daemon, &socket, "e").await;
            let cache = request(5, 0, 64 << 20);
            client.write(vec![cache.into()]).await.unwrap();
            let reply = read_exactly(&client, 16).await;
            assert_eq!(&reply[4..8], &u32::to_be_bytes(errno), "sector {sector}");
            client.shutdown();
            daemon.ok("nbd-server-stop", json!({})).await;
            daemon
                .ok("blockdev-del", json!({ "node-name": "disk" }))
                .await;
        }
    });
}

#[test]
fn a_client_that_does_not_read_its_long_replies_gets_its_writes_done() {
    run(async |dir| {
        let (server, socket) = served(&dir, Options::default()).await;
        server.export("e", "disk", true).await;
        let client = transmission(&server, &socket, "e").await;
        let read = request(0, 0, 1 << 20);
        let write = [request(1, 3 << 20, 1 << 20), vec![0x22; 1 << 20]].concat();
        let all = [read.repeat(40), write].concat();
        client.write(vec![all.into()]).await.unwrap();
        // Far more than the socket holds is still to be sent.
        while server.view("disk").await != "11 11 11 22" {
            server.ports.runtime.sleep(Duration::from_millis(1)).await;
        }
        let replies = read_exactly(&client, 41 * 16 + (40 << 20)).await;
        let data = replies.iter().map(|byte| usize::from(*byte == 0x11));
        assert_eq!(data.sum::<usize>(), 40 << 20);
        client.shutdown();
    });
}
