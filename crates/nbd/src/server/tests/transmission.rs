//! Requests and replies.

use super::{Client, ContextExtents, Piece, disk, request};
use crate::Errno;
use crate::server::{CloseReason, Limits, Unanswered};
use crate::wire::{
    BlockSizes, CommandCode as Code, CommandFlags, Extent, MetaContext, RequestHeader,
    TransmissionFlags,
};
use bytes::Bytes;
use expect_test::expect;

fn with(flags: CommandFlags, header: RequestHeader) -> RequestHeader {
    RequestHeader { flags, ..header }
}

/// One of each, with the flags it takes.
fn one_of_each() -> Vec<(RequestHeader, &'static [u8])> {
    vec![
        (request(Code::Read, 1, 0, 4), b""),
        (
            with(CommandFlags::FUA, request(Code::Write, 2, 4096, 4)),
            b"data",
        ),
        (request(Code::Flush, 3, 0, 0), b""),
        (request(Code::Trim, 4, 512, 512), b""),
        (
            with(
                CommandFlags::FUA | CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO,
                request(Code::WriteZeroes, 5, 0, 1 << 20),
            ),
            b"",
        ),
        (request(Code::Cache, 6, 0, 4096), b""),
    ]
}

#[test]
fn each_command_is_answered_by_a_simple_reply() {
    let mut client = Client::simple();
    for (header, payload) in one_of_each() {
        client.request(header, payload);
    }
    client.answer();
    expect![[r#"
        C READ #1 0+4 -
        E #1 Read { range: 0+4 }
        C WRITE #2 4096+4 FUA 64*1 61*1 74*1 61*1
        E #2 Write { range: 4096+4, data: b"data", fua: true }
        C FLUSH #3 0+0 -
        E #3 Flush
        C TRIM #4 512+512 -
        E #4 Trim { range: 512+512, fua: false }
        C WRITE_ZEROES #5 0+1048576 FUA|NO_HOLE|FAST_ZERO
        E #5 WriteZeroes { range: 0+1048576, no_hole: true, fast_zero: true, fua: true }
        C CACHE #6 0+4096 -
        E #6 Cache { range: 0+4096 }
        S simple #1 ok 61*4
        S simple #2 ok
        S simple #3 ok
        S simple #4 ok
        S simple #5 ok
        S simple #6 ok
    "#]]
    .assert_eq(&client.transcript());
}

#[test]
fn each_command_is_answered_once_structured_replies_are_negotiated() {
    let mut client = Client::structured();
    for (header, payload) in one_of_each() {
        client.request(header, payload);
    }
    client.request(
        with(
            CommandFlags::REQ_ONE,
            request(Code::BlockStatus, 7, 0, 8192),
        ),
        &[],
    );
    client.request(with(CommandFlags::DF, request(Code::Read, 8, 8, 8)), &[]);
    client.answer();
    expect![[r#"
        C READ #1 0+4 -
        E #1 Read { range: 0+4 }
        C WRITE #2 4096+4 FUA 64*1 61*1 74*1 61*1
        E #2 Write { range: 4096+4, data: b"data", fua: true }
        C FLUSH #3 0+0 -
        E #3 Flush
        C TRIM #4 512+512 -
        E #4 Trim { range: 512+512, fua: false }
        C WRITE_ZEROES #5 0+1048576 FUA|NO_HOLE|FAST_ZERO
        E #5 WriteZeroes { range: 0+1048576, no_hole: true, fast_zero: true, fua: true }
        C CACHE #6 0+4096 -
        E #6 Cache { range: 0+4096 }
        C BLOCK_STATUS #7 0+8192 REQ_ONE
        E #7 BlockStatus { range: 0+8192, req_one: true, contexts: {"base:allocation"} }
        C READ #8 8+8 DF
        E #8 Read { range: 8+8 }
        S chunk #1 DONE data 0 61*4
        S simple #2 ok
        S simple #3 ok
        S simple #4 ok
        S simple #5 ok
        S simple #6 ok
        S chunk #7 DONE BlockStatus(1, [8192:0x0])
        S chunk #8 DONE data 8 61*8
    "#]]
    .assert_eq(&client.transcript());
}

#[test]
fn errors_carry_a_text_where_the_protocol_can() {
    for (mut client, expect) in [
        (
            Client::simple(),
            expect![[r"
            S simple #1 EIO
            S simple #2 ENOSPC
            S simple #3 ENOTSUP
            S simple #3 EINVAL
        "]],
        ),
        (
            Client::structured(),
            expect![[r#"
            S chunk #1 DONE Error(EIO, "why")
            S chunk #2 DONE Error(ENOSPC, "why")
            S chunk #3 DONE Error(ENOTSUP, "why")
            S chunk #3 DONE Error(EINVAL, "why")
        "#]],
        ),
    ] {
        client.request(request(Code::Read, 1, 0, 512), &[]);
        client.request(request(Code::Flush, 2, 0, 0), &[]);
        let zeroes = request(Code::WriteZeroes, 3, 0, 512);
        client.request(with(CommandFlags::FAST_ZERO, zeroes), &[]);
        client.request(zeroes, &[]);
        client.transcript.clear();
        for errno in [Errno::Io, Errno::NoSpc, Errno::NotSup, Errno::NotSup] {
            let ticket = client.ticket();
            client.session.reply_error(ticket, errno, "why");
        }
        client.run();
        expect.assert_eq(&client.transcript());
    }
}

#[test]
fn replies_may_come_in_any_order() {
    let mut client = Client::structured();
    client.request(request(Code::Flush, 1, 0, 0), &[]);
    client.request(request(Code::Flush, 1, 0, 0), &[]);
    client.request(request(Code::Flush, 2, 0, 0), &[]);
    client.requests.reverse();
    client.transcript.clear();
    client.answer();
    expect![[r"
        S simple #2 ok
        S simple #1 ok
        S simple #1 ok
    "]]
    .assert_eq(&client.transcript());
}

#[test]
fn holes_are_sent_as_holes_only_to_clients_that_know_them() {
    let pieces = || {
        vec![
            Piece::Data(Bytes::from_static(b"aaaa")),
            Piece::Zeroes(70_000),
            Piece::Data(Bytes::new()),
            Piece::Data(Bytes::from_static(b"bb")),
        ]
    };
    let mut lines = String::new();
    for (mut client, flags) in [
        (Client::structured(), CommandFlags::NONE),
        (Client::structured(), CommandFlags::DF),
        (Client::simple(), CommandFlags::NONE),
    ] {
        client.request(with(flags, request(Code::Read, 1, 512, 70_006)), &[]);
        client.transcript.clear();
        let ticket = client.ticket();
        client.session.reply_pieces(ticket, pieces());
        client.run();
        lines += &client.transcript();
    }
    expect![[r"
        S chunk #1 - data 512 61*4
        S chunk #1 - OffsetHole(516, 70000)
        S chunk #1 DONE data 70516 62*2
        S chunk #1 DONE data 512 61*4 00*70000 62*2
        S simple #1 ok 61*4 00*70000 62*2
    "]]
    .assert_eq(&lines);
}

#[test]
fn data_of_the_wrong_length_is_an_error_and_never_sent() {
    let mut lines = String::new();
    for mut client in [Client::structured(), Client::simple()] {
        for cookie in 1..=4 {
            client.request(request(Code::Read, cookie, 0, 8), &[]);
        }
        client.request(request(Code::Flush, 5, 0, 0), &[]);
        client.transcript.clear();
        let ticket = client.ticket();
        client
            .session
            .reply_data(ticket, Bytes::from_static(b"short"));
        let ticket = client.ticket();
        client
            .session
            .reply_pieces(ticket, vec![Piece::Zeroes(u64::MAX), Piece::Zeroes(9)]);
        let ticket = client.ticket();
        client.session.reply_ok(ticket);
        let ticket = client.ticket();
        client.session.reply_block_status(ticket, &[]);
        let ticket = client.ticket();
        client
            .session
            .reply_data(ticket, Bytes::from_static(b"unasked"));
        client.run();
        lines += &client.transcript();
    }
    expect![[r#"
        S chunk #1 DONE Error(EIO, "the server read 5 bytes instead of 8")
        S chunk #2 DONE Error(EIO, "the server read 18446744073709551615 bytes instead of 8")
        S chunk #3 DONE Error(EIO, "the server had no data to send")
        S chunk #4 DONE Error(EIO, "this was no block status")
        S chunk #5 DONE Error(EIO, "the server read 7 bytes instead of 0")
        S simple #1 EIO
        S simple #2 EIO
        S simple #3 EIO
        S simple #4 EIO
        S simple #5 EIO
    "#]]
    .assert_eq(&lines);
}

#[test]
fn block_status_is_joined_clipped_and_bounded() {
    let limits = Limits {
        extents: 3,
        ..Limits::default()
    };
    let extent = |length, flags| Extent { length, flags };
    let mut lines = String::new();
    for (flags, extents) in [
        (
            CommandFlags::NONE,
            vec![extent(10, 0), extent(0, 1), extent(20, 0), extent(5, 3)],
        ),
        (CommandFlags::NONE, vec![extent(u64::MAX, 3)]),
        (
            CommandFlags::NONE,
            vec![extent(1, 0), extent(1, 1), extent(1, 2), extent(1, 3)],
        ),
        (
            CommandFlags::REQ_ONE,
            vec![extent(10, 0), extent(20, 0), extent(5, 3)],
        ),
        (CommandFlags::NONE, vec![]),
    ] {
        let mut client = Client::in_transmission(limits, disk(), true);
        client.request(with(flags, request(Code::BlockStatus, 1, 0, 100)), &[]);
        client.transcript.clear();
        let answer = ContextExtents {
            context: MetaContext::BaseAllocation,
            extents,
        };
        let ticket = client.ticket();
        client.session.reply_block_status(ticket, &[answer]);
        client.run();
        lines += &client.transcript();
    }
    expect![[r"
        S chunk #1 DONE BlockStatus(1, [30:0x0, 5:0x3])
        S chunk #1 DONE BlockStatus(1, [100:0x3])
        S chunk #1 DONE BlockStatus(1, [1:0x0, 1:0x1, 1:0x2])
        S chunk #1 DONE BlockStatus(1, [30:0x0])
        S chunk #1 DONE BlockStatus(1, [100:0x0])
    "]]
    .assert_eq(&lines);
}

#[test]
fn two_contexts_get_a_chunk_each() {
    let mut export = disk();
    export.contexts = MetaContext::ALL.into_iter().collect();
    let mut client = Client::with(Limits::default(), export);
    client.hello(client.both);
    client.option(&super::OptionRequest::StructuredReply);
    let queries = MetaContext::ALL
        .map(crate::wire::ContextQuery::Context)
        .to_vec();
    client.option(&super::OptionRequest::SetMetaContext(
        crate::wire::MetaRequest {
            name: super::name("disk"),
            queries,
        },
    ));
    client.go();
    client.request(request(Code::BlockStatus, 1, 0, 100), &[]);
    client.transcript.clear();
    let depth = ContextExtents {
        context: MetaContext::AllocationDepth,
        extents: vec![Extent {
            length: 100,
            flags: 2,
        }],
    };
    let ticket = client.ticket();
    client.session.reply_block_status(ticket, &[depth]);
    client.run();
    expect![[r"
        S chunk #1 - BlockStatus(1, [100:0x0])
        S chunk #1 DONE BlockStatus(2, [100:0x2])
    "]]
    .assert_eq(&client.transcript());
}

#[test]
fn an_empty_range_is_answered_at_once() {
    let mut lines = String::new();
    for mut client in [Client::structured(), Client::simple()] {
        for code in [
            Code::Read,
            Code::Write,
            Code::Trim,
            Code::WriteZeroes,
            Code::Cache,
        ] {
            client.request(request(code, 1, 1 << 20, 0), &[]);
        }
        assert!(client.requests.is_empty());
        lines += &client.transcript();
    }
    expect![[r"
        C READ #1 1048576+0 -
        S chunk #1 DONE None
        C WRITE #1 1048576+0 -
        S simple #1 ok
        C TRIM #1 1048576+0 -
        S simple #1 ok
        C WRITE_ZEROES #1 1048576+0 -
        S simple #1 ok
        C CACHE #1 1048576+0 -
        S simple #1 ok
        C READ #1 1048576+0 -
        S simple #1 ok
        C WRITE #1 1048576+0 -
        S simple #1 ok
        C TRIM #1 1048576+0 -
        S simple #1 ok
        C WRITE_ZEROES #1 1048576+0 -
        S simple #1 ok
        C CACHE #1 1048576+0 -
        S simple #1 ok
    "]]
    .assert_eq(&lines);
}

#[test]
fn every_rule_has_its_error() {
    let mut export = disk();
    export.block_sizes = BlockSizes::new(512, 4096, 65536).unwrap();
    let mut client = Client::in_transmission(Limits::default(), export, true);
    let end = 1 << 20;
    for header in [
        request(Code::Read, 1, end, 512),
        request(Code::Read, 2, u64::MAX, 512),
        request(Code::Read, 3, 1, 512),
        request(Code::Read, 4, 0, 513),
        request(Code::Read, 5, 0, 65536 + 512),
        request(Code::Trim, 6, end - 512, 1024),
        request(Code::WriteZeroes, 7, end - 512, 1024),
        request(Code::Cache, 8, end, 512),
        request(Code::BlockStatus, 9, 0, 0),
        request(Code::BlockStatus, 10, end, 512),
        request(Code::Flush, 11, 512, 0),
        request(Code::Flush, 12, 0, 512),
        request(Code::Unknown(8), 13, 0, 0),
        with(
            CommandFlags::from_bits(0x40),
            request(Code::Read, 14, 0, 512),
        ),
        with(CommandFlags::NO_HOLE, request(Code::Trim, 15, 0, 512)),
        with(
            CommandFlags::PAYLOAD_LEN,
            request(Code::BlockStatus, 16, 0, 512),
        ),
    ] {
        client.request(header, &[]);
    }
    client.request(request(Code::Write, 17, end - 1, 2), b"xx");
    client.request(request(Code::Write, 18, 1, 2), b"xx");
    assert!(client.requests.is_empty());
    let errors: String = client
        .transcript()
        .lines()
        .filter(|l| l.starts_with('S'))
        .fold(String::new(), |text, line| text + line + "\n");
    expect![[r#"
        S chunk #1 DONE Error(EINVAL, "READ #1 1048576+512 -: past the end of the export")
        S chunk #2 DONE Error(EINVAL, "READ #2 18446744073709551615+512 -: past the end of the export")
        S chunk #3 DONE Error(EINVAL, "READ #3 1+512 -: not aligned to the minimum block size")
        S chunk #4 DONE Error(EINVAL, "READ #4 0+513 -: not aligned to the minimum block size")
        S chunk #5 DONE Error(EOVERFLOW, "READ #5 0+66048 -: longer than the maximum payload")
        S chunk #6 DONE Error(EINVAL, "TRIM #6 1048064+1024 -: past the end of the export")
        S chunk #7 DONE Error(ENOSPC, "WRITE_ZEROES #7 1048064+1024 -: past the end of the export")
        S chunk #8 DONE Error(EINVAL, "CACHE #8 1048576+512 -: past the end of the export")
        S chunk #9 DONE Error(EINVAL, "BLOCK_STATUS #9 0+0 -: a block status needs a length")
        S chunk #a DONE Error(EINVAL, "BLOCK_STATUS #a 1048576+512 -: past the end of the export")
        S chunk #b DONE Error(EINVAL, "FLUSH #b 512+0 -: a flush has neither offset nor length")
        S chunk #c DONE Error(EINVAL, "FLUSH #c 0+512 -: a flush has neither offset nor length")
        S chunk #d DONE Error(EINVAL, "command 8 #d 0+0 -: unknown command")
        S chunk #e DONE Error(EINVAL, "READ #e 0+512 0x40: a flag is set that this command or export does not take")
        S chunk #f DONE Error(EINVAL, "TRIM #f 0+512 NO_HOLE: a flag is set that this command or export does not take")
        S chunk #10 DONE Error(EINVAL, "BLOCK_STATUS #10 0+512 PAYLOAD_LEN: a flag is set that this command or export does not take")
        S chunk #11 DONE Error(ENOSPC, "WRITE #11 1048575+2 -: past the end of the export")
        S chunk #12 DONE Error(EINVAL, "WRITE #12 1+2 -: not aligned to the minimum block size")
    "#]].assert_eq(&errors);
}

#[test]
fn what_is_not_offered_is_refused() {
    let mut export = disk();
    export.flags = TransmissionFlags::NONE;
    let mut client = Client::in_transmission(Limits::default(), export, false);
    for (header, payload) in one_of_each() {
        client.request(header, payload);
    }
    client.request(with(CommandFlags::DF, request(Code::Read, 7, 0, 4)), &[]);
    client.request(request(Code::BlockStatus, 8, 0, 4), &[]);
    client.answer();
    expect![[r"
        C READ #1 0+4 -
        E #1 Read { range: 0+4 }
        C WRITE #2 4096+4 FUA 64*1 61*1 74*1 61*1
        S simple #2 EINVAL
        C FLUSH #3 0+0 -
        S simple #3 EINVAL
        C TRIM #4 512+512 -
        S simple #4 EINVAL
        C WRITE_ZEROES #5 0+1048576 FUA|NO_HOLE|FAST_ZERO
        S simple #5 EINVAL
        C CACHE #6 0+4096 -
        S simple #6 EINVAL
        C READ #7 0+4 DF
        S simple #7 EINVAL
        C BLOCK_STATUS #8 0+4 -
        S simple #8 EINVAL
        S simple #1 ok 61*4
    "]]
    .assert_eq(&client.transcript());
}

#[test]
fn a_read_only_export_refuses_every_change() {
    let mut export = disk();
    export.flags = TransmissionFlags::READ_ONLY | TransmissionFlags::SEND_FLUSH;
    let mut client = Client::in_transmission(Limits::default(), export, false);
    client.request(request(Code::Write, 1, 1 << 30, 4), b"data");
    client.request(request(Code::Trim, 2, 0, 4), &[]);
    client.request(request(Code::WriteZeroes, 3, 0, 4), &[]);
    client.request(request(Code::Read, 4, 0, 4), &[]);
    client.answer();
    expect![[r"
        C WRITE #1 1073741824+4 - 64*1 61*1 74*1 61*1
        S simple #1 EPERM
        C TRIM #2 0+4 -
        S simple #2 EPERM
        C WRITE_ZEROES #3 0+4 -
        S simple #3 EPERM
        C READ #4 0+4 -
        E #4 Read { range: 0+4 }
        S simple #4 ok 61*4
    "]]
    .assert_eq(&client.transcript());
}

#[test]
fn a_farewell_is_clean_once_everything_was_answered() {
    let mut client = Client::structured();
    client.request(request(Code::Write, 1, 0, 4), b"data");
    client.answer();
    client.request(request(Code::Disc, 2, 0, 0), &[]);
    let closed = client.closed.unwrap();
    assert!(closed.is_clean(), "{closed:?}");
}

#[test]
fn after_a_farewell_what_is_in_flight_is_still_answered() {
    let mut client = Client::structured();
    client.request(request(Code::Write, 1, 0, 4), b"data");
    client.request(request(Code::Flush, 2, 0, 0), &[]);
    client.request(request(Code::Disc, 3, 7, 7), &[]);
    client.request(request(Code::Write, 4, 0, 4), b"late");
    assert!(client.closed.is_none());
    assert_eq!(client.session.poll_want(), crate::Want::Nothing);
    client.transcript.clear();
    client.answer();
    expect![[r"
        E Closed(Closed { reason: Disconnected, unanswered: Unanswered { requests: 2, writes: 1 } })
        S simple #1 ok
        S simple #2 ok
    "]]
    .assert_eq(&client.transcript());
    let closed = client.closed.unwrap();
    assert!(!closed.is_clean());
    assert_eq!(closed.reason, CloseReason::Disconnected);
}

#[test]
fn a_client_that_hangs_up_after_its_farewell_has_still_said_it() {
    let mut client = Client::structured();
    client.request(request(Code::Write, 1, 0, 4), b"data");
    client.request(request(Code::Disc, 2, 0, 0), &[]);
    let closed = client.end();
    assert_eq!(closed.reason, CloseReason::Disconnected);
    assert_eq!(
        closed.unanswered,
        Unanswered {
            requests: 1,
            writes: 1
        }
    );
}

#[test]
fn a_client_that_vanishes_leaves_what_is_unanswered() {
    let mut client = Client::structured();
    client.request(request(Code::Write, 1, 0, 4), b"data");
    client.request(request(Code::Trim, 2, 0, 4), &[]);
    client.request(request(Code::Read, 3, 0, 4), &[]);
    let closed = client.end();
    assert!(!closed.is_clean());
    assert_eq!(closed.reason, CloseReason::EndOfStream);
    assert_eq!(
        closed.unanswered,
        Unanswered {
            requests: 3,
            writes: 2
        }
    );
    // What is still running may be answered; nobody hears it.
    client.answer();
    assert!(client.session.is_closed());
}

#[test]
fn a_client_that_vanishes_idle_is_still_not_clean() {
    let mut client = Client::simple();
    let closed = client.end();
    assert!(!closed.is_clean());
    assert_eq!(closed.unanswered, Unanswered::default());
}

#[test]
fn a_server_that_shuts_down_refuses_new_requests_and_answers_the_old() {
    let mut client = Client::structured();
    client.request(request(Code::Write, 1, 0, 4), b"data");
    client.session.shut_down();
    client.request(request(Code::Write, 2, 0, 4), b"more");
    client.request(request(Code::Read, 3, 0, 4), &[]);
    client.answer();
    expect![[r#"
        C WRITE #1 0+4 - 64*1 61*1 74*1 61*1
        E #1 Write { range: 0+4, data: b"data", fua: false }
        C WRITE #2 0+4 - 6d*1 6f*1 72*1 65*1
        S chunk #2 DONE Error(ESHUTDOWN, "WRITE #2 0+4 -: the server is shutting down")
        C READ #3 0+4 -
        S chunk #3 DONE Error(ESHUTDOWN, "READ #3 0+4 -: the server is shutting down")
        S simple #1 ok
    "#]]
    .assert_eq(&client.transcript());
    assert_eq!(client.session.unanswered(), Unanswered::default());
}
