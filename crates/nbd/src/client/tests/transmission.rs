//! Requests and their completions.

use super::{Event, SIZE, Server, range};
use crate::client::{CloseReason, Limits, Refused, Reply, Session};
use crate::wire::{ChunkFlags, ChunkKind, CommandFlags, Cookie};
use crate::{Errno, Want};
use bytes::Bytes;
use expect_test::expect;

const DONE: ChunkFlags = ChunkFlags::DONE;
const MORE: ChunkFlags = ChunkFlags::NONE;

fn one_of_each(session: &mut Session) -> Vec<Cookie> {
    let fua = CommandFlags::FUA;
    vec![
        session.read(range(4096, 4)).unwrap(),
        session.write(0, Bytes::from_static(b"aaaa"), fua).unwrap(),
        session.flush().unwrap(),
        session.trim(range(0, 512), CommandFlags::NONE).unwrap(),
        session
            .write_zeroes(range(0, SIZE), fua | CommandFlags::NO_HOLE)
            .unwrap(),
        session.cache(range(0, 1)).unwrap(),
    ]
}

#[test]
fn each_command_completes_with_a_simple_reply() {
    let mut server = Server::simple();
    let cookies = one_of_each(&mut server.session);
    assert_eq!(server.session.in_flight(), 6);
    for cookie in cookies.iter().skip(1).rev() {
        server.answer(*cookie, None, &[]);
    }
    server.answer(cookies[0], None, b"data");
    expect![[r#"
        C READ #1 4096+4 -
        C WRITE #2 0+4 FUA 61*4
        C FLUSH #3 0+0 -
        C TRIM #4 0+512 -
        C WRITE_ZEROES #5 0+1048576 FUA|NO_HOLE
        C CACHE #6 0+1 -
        E #6 Ok(Done)
        E #5 Ok(Done)
        E #4 Ok(Done)
        E #3 Ok(Done)
        E #2 Ok(Done)
        E #1 Ok(Data(b"data"))
    "#]]
    .assert_eq(&server.transcript());
    assert_eq!(server.session.in_flight(), 0);
}

#[test]
fn each_command_completes_with_a_structured_reply() {
    let mut server = Server::structured();
    let cookies = one_of_each(&mut server.session);
    let status = server
        .session
        .block_status(range(0, 100), CommandFlags::REQ_ONE)
        .unwrap();
    for cookie in cookies.iter().skip(1) {
        server.chunk(*cookie, ChunkKind::None, DONE, &[]);
    }
    server.data(cookies[0], DONE, 4096, b"data");
    server.chunk(
        status,
        ChunkKind::BlockStatus,
        DONE,
        &[0, 0, 0, 7, 0, 0, 0, 99, 0, 0, 0, 3],
    );
    expect![[r#"
        C READ #1 4096+4 -
        C WRITE #2 0+4 FUA 61*4
        C FLUSH #3 0+0 -
        C TRIM #4 0+512 -
        C WRITE_ZEROES #5 0+1048576 FUA|NO_HOLE
        C CACHE #6 0+1 -
        C BLOCK_STATUS #7 0+100 REQ_ONE
        E #2 Ok(Done)
        E #3 Ok(Done)
        E #4 Ok(Done)
        E #5 Ok(Done)
        E #6 Ok(Done)
        E #1 Ok(Data(b"data"))
        E #7 Ok([ContextExtents { context: BaseAllocation, extents: [99:0x3] }])
    "#]]
    .assert_eq(&server.transcript());
}

#[test]
fn a_read_is_put_together_from_chunks_in_any_order() {
    let mut server = Server::structured();
    let cookie = server.session.read(range(512, 12)).unwrap();
    let other = server.session.read(range(0, 2)).unwrap();
    server.data(cookie, MORE, 520, b"ijkl");
    server.chunk(
        cookie,
        ChunkKind::OffsetHole,
        MORE,
        &[&[0; 6][..], &[2, 4, 0, 0, 0, 4]].concat(),
    );
    server.data(other, MORE, 0, b"xy");
    server.data(cookie, MORE, 512, b"abcd");
    server.chunk(other, ChunkKind::None, DONE, &[]);
    server.chunk(cookie, ChunkKind::None, DONE, &[]);
    expect![[r#"
        C READ #1 512+12 -
        C READ #2 0+2 -
        E #2 Ok(Data(b"xy"))
        E #1 Ok(Data(b"abcd\0\0\0\0ijkl"))
    "#]]
    .assert_eq(&server.transcript());
}

#[test]
fn an_error_is_told_with_the_servers_text() {
    let mut server = Server::structured();
    let read = server.session.read(range(0, 8)).unwrap();
    let flush = server.session.flush().unwrap();
    let trim = server
        .session
        .trim(range(0, 1), CommandFlags::NONE)
        .unwrap();
    server.data(read, MORE, 0, b"abcd");
    let offset = [&[0, 0, 0, 5, 0, 2][..], b"no", &[0; 7], &[4]].concat();
    server.chunk(read, ChunkKind::ErrorOffset, MORE, &offset);
    server.chunk(read, ChunkKind::Error, MORE, &[0, 0, 0, 28, 0, 0]);
    server.chunk(read, ChunkKind::None, DONE, &[]);
    server.answer(flush, Some(Errno::NoSpc), &[]);
    let newer = [&[0, 0, 0x12, 0x34, 0, 1][..], b"?", b"more"].concat();
    server.chunk(trim, ChunkKind::UnknownError(0x8123), DONE, &newer);
    expect![[r#"
        C READ #1 0+8 -
        C FLUSH #2 0+0 -
        C TRIM #3 0+1 -
        E #1 Err(Answered(EIO, "no"))
        E #2 Err(Answered(ENOSPC, ""))
        E #3 Err(Answered(EINVAL, "?"))
    "#]]
    .assert_eq(&server.transcript());
}

#[test]
fn what_the_server_would_refuse_is_not_sent() {
    let mut server = Server::structured();
    let session = &mut server.session;
    let none = CommandFlags::NONE;
    let rule = |errno, why| Err(Refused::Rule(errno, why));
    assert_eq!(
        session.read(range(SIZE, 1)),
        rule(Errno::Inval, "past the end of the export")
    );
    assert_eq!(
        session.write(SIZE, Bytes::from_static(b"x"), none),
        rule(Errno::NoSpc, "past the end of the export")
    );
    assert_eq!(
        session.read(range(0, 0)),
        rule(Errno::Inval, "a request needs a length")
    );
    assert_eq!(
        session.read(range(0, 65537)),
        rule(Errno::Overflow, "longer than the maximum payload")
    );
    assert_eq!(
        session.write(0, Bytes::from(vec![0; 65537]), none),
        rule(Errno::Inval, "longer than the maximum payload")
    );
    assert_eq!(
        session.write_zeroes(range(0, 1), CommandFlags::FAST_ZERO),
        rule(
            Errno::Inval,
            "a flag is set that this command or export does not take"
        )
    );
    assert_eq!(
        session.trim(range(0, 1 << 33), none),
        rule(Errno::Overflow, "longer than the protocol allows")
    );
    server.run();
    assert_eq!(server.transcript(), "");
}

#[test]
fn requests_and_bytes_in_flight_are_bounded() {
    let limits = Limits {
        requests: 2,
        payload: 4096,
        bytes: 4097,
        ..Limits::default()
    };
    let mut server = Server::simple_with(limits);
    let first = server.session.read(range(0, 4096)).unwrap();
    assert_eq!(server.session.read(range(0, 2)), Err(Refused::Busy));
    assert!(server.session.has_room(1));
    assert!(!server.session.has_room(2));
    server.session.flush().unwrap();
    assert_eq!(server.session.flush(), Err(Refused::Busy));
    server.answer(first, None, &[1; 4096]);
    assert!(server.session.has_room(4097));
}

#[test]
fn lost_requests_are_told_in_order_and_before_the_end() {
    let mut server = Server::simple();
    for _ in 0..3 {
        server.session.flush().unwrap();
    }
    server.run();
    server.transcript.clear();
    server.end();
    expect![[r"
        E #1 Err(Lost(EndOfStream))
        E #2 Err(Lost(EndOfStream))
        E #3 Err(Lost(EndOfStream))
        E Closed: the server closed the connection
    "]]
    .assert_eq(&server.transcript());
    assert_eq!(server.session.in_flight(), 0);
}

#[test]
fn a_farewell_waits_for_what_is_in_flight() {
    let mut server = Server::simple();
    let flush = server.session.flush().unwrap();
    server.session.disconnect();
    assert_eq!(server.session.flush(), Err(Refused::Closed));
    server.run();
    assert_eq!(server.closed, None);
    server.answer(flush, None, &[]);
    expect![[r"
        C FLUSH #1 0+0 -
        E #1 Ok(Done)
        C DISC #0 0+0 -
        E Closed: disconnected
    "]]
    .assert_eq(&server.transcript());
    assert_eq!(server.closed, Some(CloseReason::Disconnected));
}

#[test]
fn a_server_that_shuts_down_is_left_once_it_has_answered() {
    let mut server = Server::structured();
    let one = server.session.flush().unwrap();
    let two = server.session.flush().unwrap();
    server.answer(one, Some(Errno::Shutdown), &[]);
    assert_eq!(server.session.flush(), Err(Refused::Closed));
    server.answer(two, None, &[]);
    assert_eq!(server.closed, Some(CloseReason::ServerShutdown));
}

fn completed_read(server: &mut Server) -> Bytes {
    let Some(Event::Completed(completion)) = server.session.poll_event() else {
        panic!("nothing has completed");
    };
    let Ok(Reply::Data(data)) = completion.result else {
        panic!("{completion:?}");
    };
    data
}

#[test]
fn data_in_one_chunk_of_input_is_not_copied() {
    let mut server = Server::simple();
    let cookie = server.session.read(range(0, 4096)).unwrap();
    let mut message = super::bytes(
        crate::wire::SimpleReply {
            cookie,
            error: None,
        }
        .encode(),
    );
    message.extend_from_slice(&[3; 4096]);
    let message = Bytes::from(message);
    server.session.handle_bytes(message.clone());
    let data = completed_read(&mut server);
    assert_eq!(data.as_ptr(), message[16..].as_ptr());
}

#[test]
fn large_data_is_read_by_the_caller() {
    let mut server = Server::structured();
    let cookie = server.session.read(range(0, 65536)).unwrap();
    let header = crate::wire::ChunkHeader {
        flags: DONE,
        kind: ChunkKind::OffsetData,
        cookie,
        length: 65536 + 8,
    };
    server.send(&[&super::bytes(header.encode())[..], &[0; 8], b"abc"].concat());
    let (length, received) = (65536, 3);
    assert_eq!(
        server.session.poll_want(),
        Want::Payload { length, received }
    );
    let mut buffer = vec![b'z'; length];
    assert_eq!(server.session.copy_payload(&mut buffer), 3);
    let whole = Bytes::from(buffer);
    server.session.handle_payload(whole.clone());
    let data = completed_read(&mut server);
    assert_eq!(data.as_ptr(), whole.as_ptr());
    assert_eq!(server.session.poll_want(), Want::SHORT);
}
