//! Clients that break the protocol: answered or left, never obeyed.

use super::{Client, bytes, disk, request};
use crate::server::{CloseReason, Limits, Unanswered};
use crate::wire::{
    ClientFlags, CommandCode as Code, ContextQuery, MetaContext, MetaRequest, OptionCode,
    OptionHeader, OptionRequest,
};
use expect_test::{Expect, expect};

/// Sends an option with this data after the greeting.
fn option(code: OptionCode, data: &[u8]) -> Client {
    let mut client = Client::greeted();
    let length = u32::try_from(data.len()).unwrap();
    client.send(&[&bytes(OptionHeader { code, length }.encode())[..], data].concat());
    client
}

fn check(code: OptionCode, data: &[u8], expect: &Expect) {
    expect.assert_eq(&option(code, data).transcript());
}

#[test]
fn unknown_client_flags_end_the_connection() {
    let mut client = Client::connect();
    client.hello(ClientFlags::from_bits(1 << 2));
    expect![[r#"
        C flags 0x4
        E Closed(Closed { reason: Violation(Malformed("the client set an unknown handshake flag")), unanswered: Unanswered { requests: 0, writes: 0 } })
    "#]].assert_eq(&client.transcript());
}

#[test]
fn an_option_without_its_magic_number_ends_the_connection() {
    let mut client = Client::greeted();
    client.send(b"GET / HTTP/1.1\r\n\r\n");
    expect![[r#"
        E Closed(Closed { reason: Violation(Malformed("an option does not begin with IHAVEOPT")), unanswered: Unanswered { requests: 0, writes: 0 } })
    "#]].assert_eq(&client.transcript());
}

#[test]
fn options_need_fixed_newstyle() {
    let mut client = Client::connect();
    client.hello(ClientFlags::NONE);
    client.transcript.clear();
    client.option(&OptionRequest::List);
    expect![[r#"
        C List
        E Closed(Closed { reason: Violation(Malformed("only EXPORT_NAME is allowed without fixed newstyle")), unanswered: Unanswered { requests: 0, writes: 0 } })
    "#]].assert_eq(&client.transcript());
}

#[test]
fn an_unknown_option_is_refused_and_the_next_is_understood() {
    let mut client = option(OptionCode(0xdead_beef), &[1; 300]);
    client.option(&OptionRequest::StructuredReply);
    expect![[r#"
        S option 3735928559 Error(ERR_UNSUP, "this server lacks the option")
        C StructuredReply
        S STRUCTURED_REPLY Ack
    "#]]
    .assert_eq(&client.transcript());
}

#[test]
fn options_without_data_refuse_data() {
    let mut lines = String::new();
    for code in [
        OptionCode::LIST,
        OptionCode::STARTTLS,
        OptionCode::STRUCTURED_REPLY,
    ] {
        let mut client = option(code, b"?");
        lines += &client.transcript();
        assert!(client.closed.is_none());
    }
    expect![[r#"
        S LIST Error(ERR_INVALID, "this option takes no data")
        S STARTTLS Error(ERR_INVALID, "this option takes no data")
        S STRUCTURED_REPLY Error(ERR_INVALID, "this option takes no data")
    "#]]
    .assert_eq(&lines);
}

#[test]
fn lengths_within_an_option_are_checked_against_its_end() {
    // A name of 4 GiB; a name longer than the data; requests beyond the end; bytes left over.
    for data in [
        &b"\xff\xff\xff\xff"[..],
        b"\x00\x00\x00\x05disk\x00\x00",
        b"\x00\x00\x00\x04disk\x00\x01",
        b"\x00\x00\x00\x04disk\x00\x00!",
        b"\x00\x00",
        b"",
    ] {
        for code in [OptionCode::GO, OptionCode::INFO] {
            let mut client = option(code, data);
            let transcript = client.transcript();
            assert!(transcript.contains("Error(ERR_INVALID"), "{transcript}");
            assert!(client.closed.is_none());
        }
    }
    for data in [
        &b"\x00\x00\x00\x04disk\xff\xff\xff\xff"[..],
        b"\x00\x00\x00\x04disk\x00\x00\x00\x01\xff\xff\xff\xff",
        b"\x00\x00\x00\x04disk\x00\x00\x00\x00!",
        b"",
    ] {
        for code in [OptionCode::LIST_META_CONTEXT, OptionCode::SET_META_CONTEXT] {
            let transcript = option(code, data).transcript();
            assert!(transcript.contains("Error(ERR_INVALID"), "{transcript}");
        }
    }
}

#[test]
fn names_that_are_no_strings_are_refused() {
    check(
        OptionCode::GO,
        b"\x00\x00\x00\x02\xff\xfe\x00\x00",
        &expect![[r#"
            S GO Error(ERR_INVALID, "an export name must be valid UTF-8")
        "#]],
    );
    check(
        OptionCode::GO,
        b"\x00\x00\x00\x03a\x00b\x00\x00",
        &expect![[r#"
            S GO Error(ERR_INVALID, "an export name must not contain NUL")
        "#]],
    );
    let long = [&b"\x00\x00\x10\x01"[..], &[b'a'; 4097], b"\x00\x00"].concat();
    check(
        OptionCode::GO,
        &long,
        &expect![[r#"
        S GO Error(ERR_INVALID, "an export name has at most 4096 bytes")
    "#]],
    );
    check(
        OptionCode::EXPORT_NAME,
        &[b'a'; 4097],
        &expect![[r#"
        E Closed(Closed { reason: Violation(Malformed("an export name has at most 4096 bytes")), unanswered: Unanswered { requests: 0, writes: 0 } })
    "#]],
    );
}

#[test]
fn the_longest_name_is_asked_for_and_never_echoed() {
    let long = [&b"\x00\x00\x10\x00"[..], &[b'a'; 4096], b"\x00\x00"].concat();
    let transcript = option(OptionCode::GO, &long).transcript();
    assert!(transcript.contains("ERR_UNKNOWN"), "{transcript}");
    assert!(transcript.len() < 500, "{transcript}");
}

#[test]
fn thousands_of_queries_and_information_requests_are_harmless() {
    let mut client = Client::greeted();
    client.option(&OptionRequest::StructuredReply);
    client.transcript.clear();
    client.send(
        &OptionRequest::SetMetaContext(MetaRequest {
            name: super::name("disk"),
            queries: vec![ContextQuery::Context(MetaContext::BaseAllocation); 3000],
        })
        .encode(),
    );
    expect![[r#"
        E DescribeExport('disk')
        S SET_META_CONTEXT MetaContext(1, "base:allocation")
        S SET_META_CONTEXT Ack
    "#]]
    .assert_eq(&client.transcript());
    let mut data = b"\x00\x00\x00\x04disk\x75\x30".to_vec();
    data.extend_from_slice(&[0, 3].repeat(30_000));
    let transcript = option(OptionCode::INFO, &data).transcript();
    assert_eq!(transcript.lines().count(), 4, "{transcript}");
}

#[test]
fn an_option_that_is_too_long_is_refused_and_the_client_left() {
    let mut client = Client::greeted();
    let (code, length) = (OptionCode::GO, 65537);
    client.send(&bytes(OptionHeader { code, length }.encode()));
    let (code, length) = (OptionCode::EXPORT_NAME, u32::MAX);
    let mut other = Client::greeted();
    other.send(&bytes(OptionHeader { code, length }.encode()));
    expect![[r#"
        E Closed(Closed { reason: Violation(Malformed("the data of an option is longer than the server's bound")), unanswered: Unanswered { requests: 0, writes: 0 } })
        S GO Error(ERR_TOO_BIG, "the option's data is too long")
        E Closed(Closed { reason: Violation(Malformed("the data of an option is longer than the server's bound")), unanswered: Unanswered { requests: 0, writes: 0 } })
    "#]].assert_eq(&(client.transcript() + &other.transcript()));
}

#[test]
fn a_request_without_its_magic_number_ends_the_connection() {
    let mut client = Client::structured();
    client.request(request(Code::Write, 1, 0, 4), b"data");
    client.transcript.clear();
    client.send(&[0; 28]);
    expect![[r#"
        E Closed(Closed { reason: Violation(Malformed("a request does not begin with its magic number")), unanswered: Unanswered { requests: 1, writes: 1 } })
    "#]].assert_eq(&client.transcript());
}

#[test]
fn a_payload_above_the_maximum_ends_the_connection() {
    let mut client = Client::simple();
    client.send(&bytes(request(Code::Write, 1, 0, (32 << 20) + 1).encode()));
    expect![[r#"
        E Closed(Closed { reason: Violation(Malformed("the payload of a write is longer than the maximum")), unanswered: Unanswered { requests: 0, writes: 0 } })
    "#]].assert_eq(&client.transcript());
}

#[test]
fn the_payload_of_a_refused_write_is_skipped() {
    let mut client = Client::simple();
    client.send(&bytes(request(Code::Write, 1, 1 << 40, 32 << 20).encode()));
    for _ in 0..512 {
        client.send(&vec![0x25; 65536]);
    }
    client.request(request(Code::Flush, 2, 0, 0), &[]);
    expect![[r"
        S simple #1 ENOSPC
        C FLUSH #2 0+0 -
        E #2 Flush
    "]]
    .assert_eq(&client.transcript());
}

#[test]
fn a_stream_that_ends_anywhere_is_an_end_of_stream() {
    let mut whole = bytes(
        super::ClientHello {
            flags: ClientFlags::ALL,
        }
        .encode(),
    );
    whole.extend(OptionRequest::StructuredReply.encode());
    let name = super::name("disk");
    let wanted = Vec::new();
    whole.extend(OptionRequest::Go(super::InfoRequest { name, wanted }).encode());
    whole.extend(bytes(request(Code::Write, 1, 0, 4).encode()));
    whole.extend(b"data");
    for length in 0..=whole.len() {
        let mut client = Client::connect();
        client.send(&whole[..length]);
        let closed = client.end();
        assert_eq!(
            closed.reason,
            CloseReason::EndOfStream,
            "after {length} bytes"
        );
        let writes = u32::from(length == whole.len());
        // A write whose payload is cut off has been announced, but was never handed on.
        let requests = u32::from(length + 4 >= whole.len());
        assert_eq!(client.requests.len(), usize::try_from(writes).unwrap());
        assert_eq!(
            closed.unanswered,
            Unanswered {
                requests,
                writes: requests
            },
            "after {length} bytes"
        );
    }
}

#[test]
fn answers_nobody_asked_for_do_nothing() {
    let mut client = Client::greeted();
    client.session.export_found(disk());
    client.session.exports_listed([]);
    client
        .session
        .export_refused(crate::wire::RepError::Unknown, "");
    client.run();
    assert_eq!(client.transcript(), "");

    // A timeout while the export is being opened.
    let mut client = Client::with(Limits::default(), disk());
    client.hello(client.both);
    let go = OptionRequest::Go(super::InfoRequest {
        name: super::name("disk"),
        wanted: Vec::new(),
    });
    client.session.handle_bytes(go.encode().into());
    assert!(client.session.poll_event().is_some());
    client
        .session
        .handle_timeout(std::time::Duration::from_mins(1));
    client.session.export_found(disk());
    client.transcript.clear();
    client.run();
    expect![[r"
        E Closed(Closed { reason: HandshakeTimeout, unanswered: Unanswered { requests: 0, writes: 0 } })
    "]].assert_eq(&client.transcript());
}
