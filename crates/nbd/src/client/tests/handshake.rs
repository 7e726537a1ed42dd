//! The handshake as a conversation, and its fallbacks.

use super::{BOTH, SIZE, Server, ordinary};
use crate::client::{CloseReason, Refused};
use crate::wire::{
    BlockSizes, HandshakeFlags, Info, OptionCode, OptionReply, RepError, TransmissionFlags,
};
use expect_test::expect;
use std::time::Duration;

#[test]
fn everything_is_negotiated_with_a_modern_server() {
    let mut server = Server::accept();
    assert_eq!(server.session.flush(), Err(Refused::NotReady));
    server.hello(BOTH);
    server.reply(OptionCode::STRUCTURED_REPLY, &OptionReply::Ack);
    server.context(0, "base:allocation");
    server.reply(OptionCode::SET_META_CONTEXT, &OptionReply::Ack);
    server.reply(OptionCode::GO, &OptionReply::Info(Info::Other(4711)));
    server.go(SIZE, ordinary());
    expect![[r#"
        C flags FIXED_NEWSTYLE|NO_ZEROES
        C StructuredReply
        C SetMetaContext(MetaRequest { name: 'disk', queries: [Context(BaseAllocation)] })
        C Go(InfoRequest { name: 'disk', wanted: [BlockSize] })
        E ExportInfo { size: 1048576, flags: HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|SEND_DF|SEND_CACHE, block_sizes: BlockSizes { minimum: 1, preferred: 4096, maximum: 65536 }, structured: true, contexts: {"base:allocation"} }
    "#]].assert_eq(&server.transcript());
}

#[test]
fn a_server_without_structured_replies_gives_no_block_status() {
    let mut server = Server::accept();
    server.hello(BOTH);
    server.unsup(OptionCode::STRUCTURED_REPLY);
    server.go(SIZE, ordinary() | TransmissionFlags::SEND_FAST_ZERO);
    expect![[r"
        C flags FIXED_NEWSTYLE|NO_ZEROES
        C StructuredReply
        C Go(InfoRequest { name: 'disk', wanted: [BlockSize] })
        E ExportInfo { size: 1048576, flags: HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|SEND_CACHE|SEND_FAST_ZERO, block_sizes: BlockSizes { minimum: 1, preferred: 4096, maximum: 65536 }, structured: false, contexts: {} }
    "]].assert_eq(&server.transcript());
}

#[test]
fn contexts_before_an_error_do_not_count() {
    let mut server = Server::accept();
    server.hello(BOTH);
    server.reply(OptionCode::STRUCTURED_REPLY, &OptionReply::Ack);
    server.context(1, "base:allocation");
    server.unsup(OptionCode::SET_META_CONTEXT);
    server.transcript.clear();
    server.go(
        SIZE,
        TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FAST_ZERO,
    );
    expect![[r"
        E ExportInfo { size: 1048576, flags: HAS_FLAGS, block_sizes: BlockSizes { minimum: 1, preferred: 4096, maximum: 65536 }, structured: true, contexts: {} }
    "]].assert_eq(&server.transcript());
}

#[test]
fn a_server_without_go_is_asked_by_export_name() {
    let mut server = Server::accept();
    server.hello(HandshakeFlags::FIXED_NEWSTYLE);
    server.unsup(OptionCode::STRUCTURED_REPLY);
    server.unsup(OptionCode::GO);
    server.send(&1024_u64.to_be_bytes());
    server.send(&[0, 1]);
    assert!(!server.ready, "the padding is missing");
    server.send(&[0; 124]);
    expect![[r"
        C flags FIXED_NEWSTYLE
        C StructuredReply
        C Go(InfoRequest { name: 'disk', wanted: [BlockSize] })
        C ExportName('disk')
        E ExportInfo { size: 1024, flags: HAS_FLAGS, block_sizes: BlockSizes { minimum: 512, preferred: 4096, maximum: 33554432 }, structured: false, contexts: {} }
    "]].assert_eq(&server.transcript());
}

#[test]
fn a_server_without_fixed_newstyle_gets_no_other_option() {
    let mut server = Server::accept();
    server.hello(HandshakeFlags::NO_ZEROES);
    server.send(&[0, 0, 0, 0, 0, 0, 2, 1, 0, 3]);
    expect![[r"
        C flags NO_ZEROES
        C ExportName('disk')
        E ExportInfo { size: 513, flags: HAS_FLAGS|READ_ONLY, block_sizes: BlockSizes { minimum: 1, preferred: 4096, maximum: 33554432 }, structured: false, contexts: {} }
    "]].assert_eq(&server.transcript());
}

#[test]
fn a_refusal_is_told_and_the_server_left_politely() {
    let mut server = Server::accept();
    server.hello(BOTH);
    server.unsup(OptionCode::STRUCTURED_REPLY);
    let text = "no such export \x1b[31m".to_owned();
    server.reply(OptionCode::GO, &OptionReply::Error(RepError::Unknown, text));
    expect![[r"
        C flags FIXED_NEWSTYLE|NO_ZEROES
        C StructuredReply
        C Go(InfoRequest { name: 'disk', wanted: [BlockSize] })
        C Abort
        E Closed: the server refused the export (ERR_UNKNOWN): no such export \u{1b}[31m
    "]]
    .assert_eq(&server.transcript());
}

#[test]
fn a_server_that_wants_tls_or_shuts_down_is_left_at_once() {
    for error in [RepError::TlsReqd, RepError::Shutdown] {
        let mut server = Server::accept();
        server.hello(BOTH);
        let reply = OptionReply::Error(error, String::new());
        server.reply(OptionCode::STRUCTURED_REPLY, &reply);
        assert_eq!(
            server.closed,
            Some(CloseReason::Refused(error, String::new()))
        );
    }
}

#[test]
fn the_handshake_has_a_deadline_and_transmission_has_none() {
    let mut server = Server::accept();
    server.session.handle_timeout(Duration::from_millis(9_999));
    server.hello(BOTH);
    assert_eq!(
        server.session.poll_deadline(),
        Some(Duration::from_secs(10))
    );
    server.session.handle_timeout(Duration::from_secs(10));
    server.run();
    assert_eq!(server.closed, Some(CloseReason::HandshakeTimeout));
    assert_eq!(Server::simple().session.poll_deadline(), None);
}

#[test]
fn leaving_during_the_handshake_ends_it() {
    let mut server = Server::accept();
    server.hello(BOTH);
    server.session.disconnect();
    server.run();
    assert_eq!(server.closed, Some(CloseReason::Disconnected));
}

#[test]
fn a_server_that_hangs_up_is_an_end_of_stream() {
    let mut server = Server::accept();
    server.send(b"NBDMAGIC");
    server.end();
    assert_eq!(server.closed, Some(CloseReason::EndOfStream));
    assert_eq!(server.session.flush(), Err(Refused::Closed));
}

#[test]
fn block_sizes_that_break_the_rules_are_refused() {
    for (minimum, preferred, maximum, good) in [
        (1, 512, 512, true),
        (65536, 65536, u32::MAX, true),
        (0, 4096, 65536, false),
        (3, 4096, 65536, false),
        (131_072, 131_072, 262_144, false),
        (512, 256, 65536, false),
        (4096, 512, 65536, false),
        (1, 5000, 65536, false),
        (1, 4096, 1, false),
    ] {
        assert_eq!(BlockSizes::new(minimum, preferred, maximum).is_ok(), good);
    }
}
