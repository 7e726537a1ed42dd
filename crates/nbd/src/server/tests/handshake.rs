//! The handshake as a conversation.

use super::{Client, bytes, disk, name};
use crate::server::{CloseReason, Closed, Limits, Unanswered};
use crate::wire::{
    ClientFlags, ContextQuery, InfoKind, InfoRequest, MetaContext, MetaRequest, OptionCode,
    OptionHeader, OptionRequest, TransmissionFlags,
};
use expect_test::{Expect, expect};
use std::time::Duration;

fn check(options: &[OptionRequest], expect: &Expect) {
    let mut client = Client::greeted();
    for option in options {
        client.option(option);
    }
    expect.assert_eq(&client.transcript());
}

fn info(export: &str, wanted: &[InfoKind]) -> InfoRequest {
    InfoRequest {
        name: name(export),
        wanted: wanted.to_vec(),
    }
}

fn meta(export: &str, queries: &[ContextQuery]) -> MetaRequest {
    MetaRequest {
        name: name(export),
        queries: queries.to_vec(),
    }
}

const ALLOCATION: ContextQuery = ContextQuery::Context(MetaContext::BaseAllocation);

#[test]
fn the_greeting_offers_fixed_newstyle_without_padding() {
    let mut session = super::Session::new(Limits::default(), Duration::ZERO);
    let mut parts = Vec::new();
    assert!(session.poll_transmit(&mut parts));
    assert_eq!(parts, [&b"NBDMAGICIHAVEOPT\x00\x03"[..]]);
}

#[test]
fn a_modern_client_negotiates_everything_and_goes() {
    check(
        &[
            OptionRequest::Unknown(OptionCode::EXTENDED_HEADERS),
            OptionRequest::StartTls,
            OptionRequest::StructuredReply,
            OptionRequest::SetMetaContext(meta("disk", &[ALLOCATION])),
            OptionRequest::Go(info(
                "disk",
                &[InfoKind::Name, InfoKind::Description, InfoKind::BlockSize],
            )),
        ],
        &expect![[r#"
            C Unknown(EXTENDED_HEADERS)
            S EXTENDED_HEADERS Error(ERR_UNSUP, "this server lacks the option")
            C StartTls
            S STARTTLS Error(ERR_UNSUP, "this server has no TLS")
            C StructuredReply
            S STRUCTURED_REPLY Ack
            C SetMetaContext(MetaRequest { name: 'disk', queries: [Context(BaseAllocation)] })
            E DescribeExport('disk')
            S SET_META_CONTEXT MetaContext(1, "base:allocation")
            S SET_META_CONTEXT Ack
            C Go(InfoRequest { name: 'disk', wanted: [Name, Description, BlockSize] })
            E OpenExport('disk')
            S GO Info(Export(1048576, HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|SEND_DF|SEND_CACHE|SEND_FAST_ZERO))
            S GO Info(Name('disk'))
            S GO Info(Description("a disk"))
            S GO Info(BlockSize(BlockSizes { minimum: 1, preferred: 4096, maximum: 33554432 }))
            S GO Ack
        "#]],
    );
}

#[test]
fn exports_are_listed_and_described_without_being_opened() {
    check(
        &[
            OptionRequest::List,
            OptionRequest::Info(info("disk", &[])),
            OptionRequest::Info(info("no\nsuch", &[])),
        ],
        &expect![[r#"
            C List
            E ListExports
            S LIST Server('disk', "a disk")
            S LIST Ack
            C Info(InfoRequest { name: 'disk', wanted: [] })
            E DescribeExport('disk')
            S INFO Info(Export(1048576, HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|SEND_CACHE|SEND_FAST_ZERO))
            S INFO Info(BlockSize(BlockSizes { minimum: 1, preferred: 4096, maximum: 33554432 }))
            S INFO Ack
            C Info(InfoRequest { name: 'no\nsuch', wanted: [] })
            E DescribeExport('no\nsuch')
            S INFO Error(ERR_UNKNOWN, "there is no such export")
        "#]],
    );
}

#[test]
fn a_refused_go_can_be_tried_again() {
    check(
        &[
            OptionRequest::Go(info("nope", &[])),
            OptionRequest::Go(info("disk", &[])),
        ],
        &expect![[r#"
            C Go(InfoRequest { name: 'nope', wanted: [] })
            E OpenExport('nope')
            S GO Error(ERR_UNKNOWN, "there is no such export")
            C Go(InfoRequest { name: 'disk', wanted: [] })
            E OpenExport('disk')
            S GO Info(Export(1048576, HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|SEND_CACHE|SEND_FAST_ZERO))
            S GO Info(BlockSize(BlockSizes { minimum: 1, preferred: 4096, maximum: 33554432 }))
            S GO Ack
        "#]],
    );
}

#[test]
fn metadata_contexts_are_listed_by_query() {
    check(
        &[
            OptionRequest::ListMetaContext(meta("disk", &[])),
            OptionRequest::StructuredReply,
            OptionRequest::ListMetaContext(meta("disk", &[])),
            OptionRequest::ListMetaContext(meta("disk", &[ContextQuery::Base])),
            OptionRequest::ListMetaContext(meta("disk", &[ContextQuery::Unknown])),
            OptionRequest::ListMetaContext(meta("nope", &[])),
        ],
        &expect![[r#"
            C ListMetaContext(MetaRequest { name: 'disk', queries: [] })
            S LIST_META_CONTEXT Error(ERR_INVALID, "structured replies must be negotiated first")
            C StructuredReply
            S STRUCTURED_REPLY Ack
            C ListMetaContext(MetaRequest { name: 'disk', queries: [] })
            E DescribeExport('disk')
            S LIST_META_CONTEXT MetaContext(0, "base:allocation")
            S LIST_META_CONTEXT Ack
            C ListMetaContext(MetaRequest { name: 'disk', queries: [Base] })
            E DescribeExport('disk')
            S LIST_META_CONTEXT MetaContext(0, "base:allocation")
            S LIST_META_CONTEXT Ack
            C ListMetaContext(MetaRequest { name: 'disk', queries: [Unknown] })
            E DescribeExport('disk')
            S LIST_META_CONTEXT Ack
            C ListMetaContext(MetaRequest { name: 'nope', queries: [] })
            E DescribeExport('nope')
            S LIST_META_CONTEXT Error(ERR_UNKNOWN, "there is no such export")
        "#]],
    );
}

#[test]
fn only_an_exact_name_selects_a_metadata_context() {
    check(
        &[
            OptionRequest::SetMetaContext(meta("disk", &[ALLOCATION])),
            OptionRequest::StructuredReply,
            OptionRequest::SetMetaContext(meta("disk", &[])),
            OptionRequest::SetMetaContext(meta("disk", &[ContextQuery::Base])),
            OptionRequest::SetMetaContext(meta(
                "disk",
                &[
                    ContextQuery::Unknown,
                    ALLOCATION,
                    ALLOCATION,
                    ContextQuery::Context(MetaContext::AllocationDepth),
                ],
            )),
        ],
        &expect![[r#"
            C SetMetaContext(MetaRequest { name: 'disk', queries: [Context(BaseAllocation)] })
            S SET_META_CONTEXT Error(ERR_INVALID, "structured replies must be negotiated first")
            C StructuredReply
            S STRUCTURED_REPLY Ack
            C SetMetaContext(MetaRequest { name: 'disk', queries: [] })
            E DescribeExport('disk')
            S SET_META_CONTEXT Ack
            C SetMetaContext(MetaRequest { name: 'disk', queries: [Base] })
            E DescribeExport('disk')
            S SET_META_CONTEXT Ack
            C SetMetaContext(MetaRequest { name: 'disk', queries: [Unknown, Context(BaseAllocation), Context(BaseAllocation), Context(AllocationDepth)] })
            E DescribeExport('disk')
            S SET_META_CONTEXT MetaContext(1, "base:allocation")
            S SET_META_CONTEXT Ack
        "#]],
    );
}

/// Whether block status is usable after these options and a GO.
fn has_block_status(options: &[OptionRequest]) -> bool {
    let mut client = Client::greeted();
    for option in options {
        client.option(option);
    }
    client.go();
    client.request(
        super::request(super::CommandCode::BlockStatus, 1, 0, 4096),
        &[],
    );
    !client.requests.is_empty()
}

#[test]
fn the_last_selection_counts_and_only_for_its_export() {
    let structured = OptionRequest::StructuredReply;
    let set = OptionRequest::SetMetaContext(meta("disk", &[ALLOCATION]));
    let none = OptionRequest::SetMetaContext(meta("disk", &[]));
    let other = OptionRequest::SetMetaContext(meta("nope", &[ALLOCATION]));
    let list = OptionRequest::ListMetaContext(meta("disk", &[ALLOCATION]));
    assert!(has_block_status(&[structured.clone(), set.clone()]));
    assert!(has_block_status(&[structured.clone(), set.clone(), list]));
    assert!(!has_block_status(&[set.clone(), structured.clone()]));
    assert!(!has_block_status(&[structured.clone(), set.clone(), none]));
    assert!(!has_block_status(&[structured.clone(), set, other]));
    assert!(!has_block_status(&[structured]));
}

#[test]
fn contexts_selected_for_one_export_are_not_usable_with_another() {
    let mut client = Client::greeted();
    client.option(&OptionRequest::StructuredReply);
    client.option(&OptionRequest::SetMetaContext(meta("disk", &[ALLOCATION])));
    client.export.name = name("other");
    client.go();
    client.request(
        super::request(super::CommandCode::BlockStatus, 1, 0, 4096),
        &[],
    );
    let transcript = client.transcript();
    assert!(
        transcript.ends_with("no metadata context was selected\")\n"),
        "{transcript}"
    );
}

#[test]
fn an_abort_is_acknowledged_and_ends_the_connection_cleanly() {
    let mut client = Client::greeted();
    client.option(&OptionRequest::Abort);
    expect![[r"
        C Abort
        E Closed(Closed { reason: Aborted, unanswered: Unanswered { requests: 0, writes: 0 } })
        S ABORT Ack
    "]]
    .assert_eq(&client.transcript());
    assert!(client.closed.unwrap().is_clean());
}

#[test]
fn an_abort_may_carry_data() {
    let mut client = Client::greeted();
    let header = OptionHeader {
        code: OptionCode::ABORT,
        length: 3,
    };
    client.send(&[&bytes(header.encode())[..], b"bye"].concat());
    assert_eq!(client.closed.unwrap().reason, CloseReason::Aborted);
}

#[test]
fn an_old_client_names_its_export_and_gets_the_padding() {
    for (flags, padding) in [
        (ClientFlags::NONE, 124),
        (ClientFlags::FIXED_NEWSTYLE, 124),
        (ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES, 0),
        (ClientFlags::NO_ZEROES, 0),
    ] {
        let mut client = Client::connect();
        client.hello(flags);
        client.stream.export_name = Some(padding);
        client.option(&OptionRequest::ExportName(name("disk")));
        let line = format!(
            "S size 1048576 HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|SEND_CACHE|\
             SEND_FAST_ZERO padding {padding}"
        );
        assert_eq!(client.transcript().lines().last(), Some(line.as_str()));
        client.request(super::request(super::CommandCode::Read, 1, 0, 512), &[]);
        assert_eq!(client.requests.len(), 1);
    }
}

#[test]
fn an_old_client_that_names_no_export_of_ours_is_left() {
    let mut client = Client::greeted();
    client.option(&OptionRequest::ExportName(name("nope")));
    expect![[r"
        C ExportName('nope')
        E OpenExport('nope')
        E Closed(Closed { reason: ExportRefused, unanswered: Unanswered { requests: 0, writes: 0 } })
    "]].assert_eq(&client.transcript());
}

#[test]
fn fast_zeroes_need_zeroes() {
    let mut export = disk();
    export.flags = TransmissionFlags::SEND_FAST_ZERO | TransmissionFlags::CAN_MULTI_CONN;
    let mut client = Client::with(Limits::default(), export);
    client.hello(client.both);
    client.transcript.clear();
    client.option(&OptionRequest::Info(info("disk", &[])));
    let transcript = client.transcript();
    assert!(
        transcript.contains("Info(Export(1048576, HAS_FLAGS|CAN_MULTI_CONN))"),
        "{transcript}"
    );
}

#[test]
fn a_server_that_shuts_down_says_so_to_every_option_but_abort() {
    let mut client = Client::greeted();
    client.session.shut_down();
    client.option(&OptionRequest::StructuredReply);
    client.go();
    client.option(&OptionRequest::Abort);
    expect![[r#"
        C StructuredReply
        S STRUCTURED_REPLY Error(ERR_SHUTDOWN, "the server is shutting down")
        C Go(InfoRequest { name: 'disk', wanted: [BlockSize] })
        S GO Error(ERR_SHUTDOWN, "the server is shutting down")
        C Abort
        E Closed(Closed { reason: Aborted, unanswered: Unanswered { requests: 0, writes: 0 } })
        S ABORT Ack
    "#]]
    .assert_eq(&client.transcript());
}

#[test]
fn a_handshake_has_a_deadline_and_transmission_has_none() {
    let mut client = Client::connect();
    assert_eq!(
        client.session.poll_deadline(),
        Some(Duration::from_secs(10))
    );
    client.session.handle_timeout(Duration::from_millis(9_999));
    client.hello(client.both);
    assert!(client.closed.is_none());
    client.session.handle_timeout(Duration::from_secs(10));
    client.run();
    assert_eq!(
        client.closed,
        Some(Closed {
            reason: CloseReason::HandshakeTimeout,
            unanswered: Unanswered::default()
        })
    );

    let mut client = Client::simple();
    assert_eq!(client.session.poll_deadline(), None);
    client.session.handle_timeout(Duration::from_secs(1000));
    client.run();
    assert!(client.closed.is_none());
}
