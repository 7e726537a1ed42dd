//! Every input in every state.

use super::{Client, ClientHello, bytes, name, request};
use crate::wire::{
    ClientFlags, CommandCode as Code, InfoRequest, MetaRequest, OptionCode, OptionRequest,
};
use expect_test::expect_file;
use std::fmt::Write;

/// Clients that have come to a certain state.
fn states() -> Vec<(&'static str, Client)> {
    let mut old = Client::connect();
    old.hello(ClientFlags::NONE);
    let mut opening = Client::greeted();
    let go = OptionRequest::Go(InfoRequest {
        name: name("disk"),
        wanted: Vec::new(),
    });
    opening.session.handle_bytes(go.encode().into());
    assert!(opening.session.poll_event().is_some());
    let mut paying = Client::simple();
    paying.send(&bytes(request(Code::Write, 9, 0, 60).encode()));
    let mut draining = Client::simple();
    draining.request(request(Code::Flush, 8, 0, 0), &[]);
    draining.request(request(Code::Disc, 9, 0, 0), &[]);
    let mut closed = Client::greeted();
    closed.option(&OptionRequest::Abort);
    let mut states = vec![
        ("ExpectClientFlags", Client::connect()),
        ("ExpectOption, old", old),
        ("ExpectOption", Client::greeted()),
        ("ExpectAnswer", opening),
        ("ExpectRequest, simple", Client::simple()),
        ("ExpectRequest, structured", Client::structured()),
        ("ExpectPayload", paying),
        ("Draining", draining),
        ("Closed", closed),
    ];
    for (_, client) in &mut states {
        client.transcript.clear();
        client.requests.clear();
    }
    states
}

fn inputs() -> Vec<(&'static str, Vec<u8>)> {
    let info = || InfoRequest {
        name: name("disk"),
        wanted: Vec::new(),
    };
    let meta = || MetaRequest {
        name: name("disk"),
        queries: Vec::new(),
    };
    let mut inputs = vec![
        (
            "flags",
            bytes(
                ClientHello {
                    flags: ClientFlags::ALL,
                }
                .encode(),
            ),
        ),
        (
            "EXPORT_NAME",
            OptionRequest::ExportName(name("nope")).encode(),
        ),
        ("ABORT", OptionRequest::Abort.encode()),
        ("LIST", OptionRequest::List.encode()),
        ("STARTTLS", OptionRequest::StartTls.encode()),
        ("INFO", OptionRequest::Info(info()).encode()),
        ("GO", OptionRequest::Go(info()).encode()),
        ("STRUCTURED_REPLY", OptionRequest::StructuredReply.encode()),
        (
            "LIST_META_CONTEXT",
            OptionRequest::ListMetaContext(meta()).encode(),
        ),
        (
            "SET_META_CONTEXT",
            OptionRequest::SetMetaContext(meta()).encode(),
        ),
        (
            "EXTENDED_HEADERS",
            OptionRequest::Unknown(OptionCode::EXTENDED_HEADERS).encode(),
        ),
    ];
    for (text, code, length) in [
        ("READ", Code::Read, 32),
        ("WRITE", Code::Write, 32),
        ("DISC", Code::Disc, 0),
        ("FLUSH", Code::Flush, 0),
        ("TRIM", Code::Trim, 32),
        ("CACHE", Code::Cache, 32),
        ("WRITE_ZEROES", Code::WriteZeroes, 32),
        ("BLOCK_STATUS", Code::BlockStatus, 32),
        ("command 99", Code::Unknown(99), 32),
    ] {
        let mut message = bytes(request(code, 1, 0, length).encode());
        if code == Code::Write {
            message.extend_from_slice(&[0; 32]);
        }
        inputs.push((text, message));
    }
    inputs
}

/// What came of an input, in a few words.
fn outcome(client: &mut Client) -> String {
    let transcript = client.transcript();
    let words: Vec<&str> = transcript
        .lines()
        .map(|line| match line {
            _ if line.contains("Error(ERR_") => {
                let error = line.split("Error(").nth(1).unwrap();
                error.split(',').next().unwrap()
            }
            _ if line.contains("Violation") => "violation",
            _ if line.starts_with("E Closed") => "closed",
            _ if line.starts_with("E #") => "request",
            _ if line.starts_with("E ") => "event",
            _ if line.contains("Ack") => "ack",
            _ if line.contains("EINVAL") || line.contains("Error(EINVAL") => "EINVAL",
            _ => "…",
        })
        .filter(|word| *word != "…")
        .collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(" ")
    }
}

#[test]
fn every_input_in_every_state() {
    let mut table = String::new();
    for (index, (state, _)) in states().iter().enumerate() {
        writeln!(table, "{state}").unwrap();
        for (input, mut message) in inputs() {
            if state.starts_with("ExpectRequest") {
                // Long enough to be taken for a request.
                message.resize(message.len().max(28), 0);
            }
            let (_, mut client) = states().swap_remove(index);
            client.send(&message);
            writeln!(table, "    {input:<18} {}", outcome(&mut client)).unwrap();
        }
    }
    expect_file!["matrix.txt"].assert_eq(&table);
}
