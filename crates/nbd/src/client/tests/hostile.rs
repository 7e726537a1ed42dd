//! Servers that break the protocol: left, never believed.

use super::{BOTH, SIZE, Server, bytes, ordinary, range};
use crate::client::Limits;
use crate::wire::{
    ChunkFlags, ChunkHeader, ChunkKind, CommandFlags, Cookie, Info, OptionCode, OptionReply,
    ReplyHeader, TransmissionFlags,
};
use expect_test::expect;

const DONE: ChunkFlags = ChunkFlags::DONE;
const MORE: ChunkFlags = ChunkFlags::NONE;

/// Why the session ended, after `script` has played the server.
fn violation(mut server: Server, script: impl FnOnce(&mut Server)) -> String {
    script(&mut server);
    let reason = server
        .closed
        .as_ref()
        .map_or("still open".to_owned(), ToString::to_string);
    format!("{reason}\n")
}

type Script = fn(&mut Server);

fn greet(server: &mut Server) {
    server.hello(BOTH);
}

fn structured(server: &mut Server) {
    greet(server);
    server.reply(OptionCode::STRUCTURED_REPLY, &OptionReply::Ack);
}

fn contexts(server: &mut Server) {
    structured(server);
    server.reply(OptionCode::SET_META_CONTEXT, &OptionReply::Ack);
}

fn raw(server: &mut Server, option: OptionCode, kind: u32, data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap();
    let header = ReplyHeader {
        option,
        kind,
        length,
    };
    server.send(&[&bytes(header.encode())[..], data].concat());
}

fn ended(before: Script, scripts: &[Script]) -> String {
    let scripts = scripts.iter().map(|script| {
        violation(Server::accept(), |server| {
            before(server);
            script(server);
        })
    });
    scripts.collect()
}

#[test]
fn greetings_that_break_the_protocol_are_ended() {
    let lines = ended(
        |_| {},
        &[
            |s| s.send(b"SSH-2.0-OpenSSH_9.7\r\n"),
            |s| s.send(b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00"),
            |s| s.send(b"NBDMAGICIHAVEOPX\x00\x00"),
        ],
    );
    expect![[r"
        protocol violation: the greeting does not begin with NBDMAGIC: not an NBD server
        protocol violation: the server speaks only the oldstyle handshake
        protocol violation: the greeting names an unknown style of handshake
    "]]
    .assert_eq(&lines);
}

#[test]
fn option_replies_that_break_the_protocol_are_ended() {
    let lines = ended(
        greet,
        &[
            |s| s.send(&[0; 20]),
            |s| s.reply(OptionCode::GO, &OptionReply::Ack),
            |s| raw(s, OptionCode::STRUCTURED_REPLY, 77, b""),
            |s| raw(s, OptionCode::STRUCTURED_REPLY, 1, b"!"),
            |s| {
                let (option, kind, length) = (OptionCode::STRUCTURED_REPLY, 1 << 31 | 1, u32::MAX);
                s.send(&bytes(
                    ReplyHeader {
                        option,
                        kind,
                        length,
                    }
                    .encode(),
                ));
            },
            |s| {
                s.reply(
                    OptionCode::STRUCTURED_REPLY,
                    &OptionReply::Info(Info::Other(3)),
                );
            },
            |s| {
                let reply = OptionReply::MetaContext(1, "base:allocation".to_owned());
                s.reply(OptionCode::STRUCTURED_REPLY, &reply);
            },
        ],
    );
    expect![[r"
        protocol violation: an option reply does not begin with its magic number
        protocol violation: an option reply names another option than the one sent
        protocol violation: an option reply has an unknown type
        protocol violation: an acknowledgement carries no data
        protocol violation: an option reply is longer than the client's bound
        protocol violation: the message is shorter than its fields
        protocol violation: the server names a metadata context without being asked
    "]]
    .assert_eq(&lines);
}

#[test]
fn metadata_contexts_that_break_the_protocol_are_ended() {
    let lines = ended(
        structured,
        &[
            |s| {
                s.context(1, "base:allocation");
                s.context(2, "base:allocation");
            },
            |s| s.context(1, "x-evil:all"),
        ],
    );
    expect![[r"
        protocol violation: the server gives a metadata context or its number twice
        protocol violation: the server selects a metadata context nobody asked for
    "]]
    .assert_eq(&lines);
}

#[test]
fn descriptions_that_break_the_protocol_are_ended() {
    let lines = ended(
        contexts,
        &[
            |s| s.reply(OptionCode::GO, &OptionReply::Ack),
            |s| raw(s, OptionCode::GO, 2, b"\x00\x00\x00\x01x"),
            |s| raw(s, OptionCode::GO, 2, b"\xff\xff\xff\xffx"),
            |s| raw(s, OptionCode::GO, 3, b""),
            |s| raw(s, OptionCode::GO, 3, b"\x00\x00\x00"),
            |s| {
                let sizes = [0_u8, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 1];
                raw(s, OptionCode::GO, 3, &sizes);
            },
            |s| s.go(1 << 63, ordinary()),
            |s| s.go(SIZE, TransmissionFlags::NONE),
            |s| {
                let sizes = crate::wire::BlockSizes::new(4096, 4096, 65536).unwrap();
                s.reply(OptionCode::GO, &OptionReply::Info(Info::BlockSize(sizes)));
                let export = Info::Export(SIZE + 512, ordinary());
                s.reply(OptionCode::GO, &OptionReply::Info(export));
                s.reply(OptionCode::GO, &OptionReply::Ack);
            },
            |s| {
                for _ in 0..300 {
                    s.reply(OptionCode::GO, &OptionReply::Info(Info::Other(9)));
                }
            },
        ],
    );
    expect![[r"
        protocol violation: the server accepts the export without describing it
        protocol violation: the server lists exports without being asked
        protocol violation: the message is shorter than its fields
        protocol violation: the message is shorter than its fields
        protocol violation: the message is shorter than its fields
        protocol violation: the maximum payload must not be below the preferred block size
        protocol violation: the size of an export must be below 2^63 bytes
        protocol violation: the transmission flags lack NBD_FLAG_HAS_FLAGS
        protocol violation: the size of the export is no multiple of its minimum block size
        protocol violation: the server sends more option replies than the client's bound
    "]]
    .assert_eq(&lines);
}

/// A server with a read of 100+8 and a flush in flight plays each script.
fn replied(scripts: &[fn(&mut Server, Cookie, Cookie)]) -> String {
    let scripts = scripts.iter().map(|script| {
        let mut server = Server::structured();
        let read = server.session.read(range(100, 8)).unwrap();
        let flush = server.session.flush().unwrap();
        violation(server, |server| script(server, read, flush))
    });
    scripts.collect()
}

#[test]
fn replies_that_do_not_fit_their_request_end_the_connection() {
    let lines = replied(&[
        |s, read, _| s.answer(Cookie(read.0 + 1), None, &[]),
        |s, read, _| s.answer(read, None, &[0; 8]),
        |s, _, _| s.send(&[0; 16]),
        |s, read, _| s.chunk(read, ChunkKind::None, MORE, &[]),
        |s, read, _| s.chunk(read, ChunkKind::None, DONE, &[]),
        |s, read, _| s.chunk(read, ChunkKind::None, DONE, &[0]),
        |s, _, _| s.chunk(Cookie(0), ChunkKind::None, DONE, &[]),
        |s, _, flush| s.data(flush, DONE, 0, b"x"),
        |s, _, flush| s.chunk(flush, ChunkKind::OffsetHole, DONE, &[0; 12]),
        |s, read, _| s.chunk(read, ChunkKind::BlockStatus, DONE, &[0; 12]),
        |s, read, _| {
            let mut header = [0; 20];
            header[..4].copy_from_slice(&[0x66, 0x8e, 0x33, 0xef]);
            header[7] = 3;
            header[8..16].copy_from_slice(&read.0.to_be_bytes());
            s.send(&header);
        },
    ]);
    expect![[r"
        protocol violation: a reply names a request that is not in flight
        protocol violation: a reply that must be structured is simple
        protocol violation: a reply does not begin with its magic number
        protocol violation: a chunk's type or flags do not fit its request
        protocol violation: a read succeeds without all of its data
        protocol violation: a chunk is longer than its type allows
        protocol violation: a reply names a request that is not in flight
        protocol violation: a chunk's type or flags do not fit its request
        protocol violation: a chunk's type or flags do not fit its request
        protocol violation: a chunk's type or flags do not fit its request
        protocol violation: a structured reply has an unknown type
    "]]
    .assert_eq(&lines);
}

#[test]
fn data_outside_its_request_or_sent_twice_ends_the_connection() {
    let lines = replied(&[
        |s, read, _| s.data(read, DONE, 100, b"1234567"),
        |s, read, _| s.data(read, DONE, 99, b"12345678"),
        |s, read, _| s.data(read, DONE, 100, b"123456789"),
        |s, read, _| s.data(read, DONE, u64::MAX, b"12345678"),
        |s, read, _| s.data(read, DONE, 100, b""),
        |s, read, _| s.chunk(read, ChunkKind::OffsetData, DONE, b"1234"),
        |s, read, _| {
            s.data(read, MORE, 100, b"1234");
            s.data(read, DONE, 103, b"45678");
        },
        |s, read, _| {
            s.data(read, MORE, 100, b"12345678");
            s.data(read, DONE, 100, b"12345678");
        },
        |s, read, _| {
            s.data(read, MORE, 100, b"1234");
            s.answer(read, Some(crate::Errno::Io), &[]);
        },
    ]);
    expect![[r"
        protocol violation: a read succeeds without all of its data
        protocol violation: a chunk reaches beyond its request
        protocol violation: a chunk reaches beyond its request
        protocol violation: a chunk reaches beyond its request
        protocol violation: a data chunk has at least one byte
        protocol violation: a data chunk has at least one byte
        protocol violation: two chunks of a read overlap
        protocol violation: two chunks of a read overlap
        protocol violation: a reply is structured first and simple then
    "]]
    .assert_eq(&lines);
}

#[test]
fn holes_outside_their_request_end_the_connection() {
    let mut lines = String::new();
    for (offset, length) in [(100_u64, 0_u32), (100, 9), (92, 8), (u64::MAX, 8), (100, 7)] {
        let mut server = Server::structured();
        let read = server.session.read(range(100, 8)).unwrap();
        let payload = [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat();
        lines += &violation(server, |server| {
            server.chunk(read, ChunkKind::OffsetHole, DONE, &payload);
        });
    }
    expect![[r"
        protocol violation: a hole has at least one byte
        protocol violation: a chunk reaches beyond its request
        protocol violation: a chunk reaches beyond its request
        protocol violation: a chunk reaches beyond its request
        protocol violation: a read succeeds without all of its data
    "]]
    .assert_eq(&lines);
}

#[test]
fn errors_that_break_the_protocol_end_the_connection() {
    let lines = replied(&[
        |s, read, _| s.chunk(read, ChunkKind::Error, DONE, &[0, 0, 0, 0, 0, 0]),
        |s, read, _| s.chunk(read, ChunkKind::Error, DONE, &[0, 0, 0, 5, 0, 9]),
        |s, read, _| s.chunk(read, ChunkKind::Error, DONE, &[0, 0, 0, 5]),
        |s, read, _| s.chunk(read, ChunkKind::Error, DONE, &[0; 5000]),
        |s, read, _| s.chunk(read, ChunkKind::ErrorOffset, DONE, &[0, 0, 0, 5, 0, 0]),
        |s, cookie, _| {
            let (flags, kind, length) = (DONE, ChunkKind::UnknownError(0xffff), u32::MAX);
            let header = ChunkHeader {
                flags,
                kind,
                cookie,
                length,
            };
            s.send(&bytes(header.encode()));
        },
        |s, read, _| {
            for _ in 0..100 {
                s.chunk(read, ChunkKind::Error, MORE, &[0, 0, 0, 5, 0, 0]);
            }
        },
    ]);
    expect![[r"
        protocol violation: an error chunk must carry an error that is not zero
        protocol violation: the message is shorter than its fields
        protocol violation: the message is shorter than its fields
        protocol violation: a chunk is longer than its type allows
        protocol violation: the message is shorter than its fields
        protocol violation: a chunk is longer than its type allows
        protocol violation: a reply consists of too many chunks
    "]]
    .assert_eq(&lines);
}

#[test]
fn structured_replies_without_negotiation_end_the_connection() {
    let mut server = Server::simple();
    let read = server.session.read(range(0, 4)).unwrap();
    server.data(read, DONE, 0, b"data");
    expect![[r#"
        C READ #1 0+4 -
        E #1 Err(Lost(Violation(Malformed("the server sends structured replies that were not negotiated"))))
        E Closed: protocol violation: the server sends structured replies that were not negotiated
    "#]].assert_eq(&server.transcript());
}

#[test]
fn a_reply_is_not_taken_for_that_of_a_later_request() {
    let mut server = Server::simple();
    let one = server.session.flush().unwrap();
    server.answer(one, None, &[]);
    let two = server.session.flush().unwrap();
    assert_eq!(one.0 & 0xffff, two.0 & 0xffff, "the slot is used again");
    server.answer(one, None, &[]);
    expect![[r#"
        C FLUSH #1 0+0 -
        E #1 Ok(Done)
        C FLUSH #2 0+0 -
        E #2 Err(Lost(Violation(Malformed("a reply names a request that is not in flight"))))
        E Closed: protocol violation: a reply names a request that is not in flight
    "#]]
    .assert_eq(&server.transcript());
}

#[test]
fn block_status_that_breaks_the_protocol_ends_the_connection() {
    let mut lines = String::new();
    for (flags, chunks) in [
        (CommandFlags::NONE, vec![&[0_u8, 0, 0, 7][..]]),
        (CommandFlags::NONE, vec![&[0, 0, 0, 7, 0, 0, 0, 1]]),
        (
            CommandFlags::NONE,
            vec![&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]],
        ),
        (
            CommandFlags::NONE,
            vec![&[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0]],
        ),
        (
            CommandFlags::NONE,
            vec![&[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0]; 2],
        ),
        (
            CommandFlags::REQ_ONE,
            vec![&[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]],
        ),
        (CommandFlags::NONE, vec![]),
    ] {
        let mut server = Server::structured();
        let cookie = server.session.block_status(range(0, 100), flags).unwrap();
        lines += &violation(server, |server| {
            for chunk in chunks {
                server.chunk(cookie, ChunkKind::BlockStatus, MORE, chunk);
            }
            server.chunk(cookie, ChunkKind::None, DONE, &[]);
        });
    }
    let mut server = Server::structured();
    let cookie = server
        .session
        .block_status(range(0, 100), CommandFlags::NONE)
        .unwrap();
    lines += &violation(server, |server| server.answer(cookie, None, &[]));
    expect![[r"
        protocol violation: a block status chunk holds whole extents, at least one
        protocol violation: a block status chunk holds whole extents, at least one
        protocol violation: an extent has at least one byte
        protocol violation: block status of a context that was not selected
        protocol violation: two block status chunks for one context
        protocol violation: a chunk is longer than its type allows
        protocol violation: a block status lacks a context
        protocol violation: a reply that must be structured is simple
    "]]
    .assert_eq(&lines);
}

#[test]
fn block_status_beyond_the_request_is_cut_and_beyond_the_bound_dropped() {
    let limits = Limits {
        extents: 2,
        ..Limits::default()
    };
    let mut server = Server::with(limits);
    server.hello(BOTH);
    server.reply(OptionCode::STRUCTURED_REPLY, &OptionReply::Ack);
    server.context(7, "base:allocation");
    server.reply(OptionCode::SET_META_CONTEXT, &OptionReply::Ack);
    server.go(SIZE, ordinary());
    server.transcript.clear();
    let extents = |extents: &[(u32, u32)]| {
        let mut payload = vec![0, 0, 0, 7];
        for (length, flags) in extents {
            payload.extend_from_slice(&length.to_be_bytes());
            payload.extend_from_slice(&flags.to_be_bytes());
        }
        payload
    };
    for payload in [
        extents(&[(u32::MAX, 3)]),
        extents(&[(1, 0), (1, 1), (1, 2)]),
    ] {
        let cookie = server
            .session
            .block_status(range(0, 100), CommandFlags::NONE)
            .unwrap();
        server.chunk(cookie, ChunkKind::BlockStatus, DONE, &payload);
    }
    expect![[r"
        C BLOCK_STATUS #1 0+100 -
        E #1 Ok([ContextExtents { context: BaseAllocation, extents: [100:0x3] }])
        C BLOCK_STATUS #2 0+100 -
        E #2 Ok([ContextExtents { context: BaseAllocation, extents: [1:0x0, 1:0x1] }])
    "]]
    .assert_eq(&server.transcript());
}
