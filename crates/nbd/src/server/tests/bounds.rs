//! What one client can make the server hold.

use super::{Client, bytes, disk, request};
use crate::Want;
use crate::server::{Limits, Unanswered};
use crate::wire::{CommandCode as Code, OptionRequest};
use bytes::Bytes;

#[test]
fn requests_in_flight_are_bounded_until_their_replies_are_taken() {
    let limits = Limits {
        requests: 2,
        ..Limits::default()
    };
    let mut client = Client::in_transmission(limits, disk(), false);
    for cookie in 0..3 {
        let header = request(Code::Flush, cookie, 0, 0);
        client.session.handle_bytes(bytes(header.encode()).into());
    }
    client.run();
    assert_eq!(client.requests.len(), 2);
    assert_eq!(client.session.poll_want(), Want::Nothing);

    let ticket = client.ticket();
    client.session.reply_ok(ticket);
    assert!(
        client.session.poll_event().is_none(),
        "the reply has not been taken"
    );
    client.run();
    assert_eq!(client.requests.len(), 2);
    assert_eq!(client.session.unanswered().requests, 2);
    client.answer();
    assert_eq!(client.session.unanswered(), Unanswered::default());
    assert_eq!(client.session.poll_want(), Want::Bytes { most: usize::MAX });
}

#[test]
fn bytes_in_flight_are_bounded_and_one_request_always_fits() {
    let limits = Limits {
        payload: 8192,
        bytes: 1,
        ..Limits::default()
    };
    let mut client = Client::in_transmission(limits, disk(), false);
    client.request(request(Code::Read, 1, 0, 4096), &[]);
    client.request(request(Code::Write, 2, 0, 4096), &[7; 4096]);
    client.request(request(Code::Read, 3, 0, 1), &[]);
    client.request(request(Code::Flush, 4, 0, 0), &[]);
    assert_eq!(
        client.requests.len(),
        2,
        "order is kept: the flush waits too"
    );
    assert_eq!(client.session.poll_want(), Want::Nothing);
    client.answer();
    assert_eq!(client.requests.len(), 2);
}

#[test]
fn refused_requests_count_too() {
    let limits = Limits {
        requests: 2,
        ..Limits::default()
    };
    let mut client = Client::in_transmission(limits, disk(), false);
    for cookie in 0..3 {
        let header = request(Code::Unknown(99), cookie, 0, 0);
        client.session.handle_bytes(bytes(header.encode()).into());
    }
    assert!(client.session.poll_event().is_none());
    assert_eq!(client.session.unanswered().requests, 2);
    client.run();
    assert_eq!(client.session.unanswered().requests, 0);
}

#[test]
fn an_option_is_not_looked_at_before_the_last_replies_are_taken() {
    let mut client = Client::greeted();
    let list = Bytes::from(OptionRequest::List.encode());
    for _ in 0..2 {
        client.session.handle_bytes(list.clone());
    }
    assert!(client.session.poll_event().is_some());
    client.session.exports_listed([]);
    assert!(client.session.poll_event().is_none());
    assert_eq!(client.session.poll_want(), Want::Nothing);
    assert!(client.session.poll_transmit(&mut Vec::new()));
    assert!(client.session.poll_event().is_some());
}

#[test]
fn a_payload_in_one_chunk_is_not_copied() {
    let mut client = Client::simple();
    let mut message = bytes(request(Code::Write, 1, 0, 4096).encode());
    message.extend_from_slice(&[9; 4096]);
    let chunk = Bytes::from(message);
    client.session.handle_bytes(chunk.clone());
    client.run();
    let super::Command::Write { data, .. } = &client.requests[0].command else {
        panic!("{:?}", client.requests);
    };
    assert_eq!(data.as_ptr(), chunk[28..].as_ptr());
    assert_eq!(data, &chunk[28..]);
}

#[test]
fn a_large_payload_is_read_by_the_caller() {
    let mut client = Client::simple();
    let mut message = bytes(request(Code::Write, 1, 0, 1 << 20).encode());
    message.extend_from_slice(&[9; 100]);
    client.send(&message);
    let (length, received) = (1 << 20, 100);
    assert_eq!(
        client.session.poll_want(),
        Want::Payload { length, received }
    );
    let mut buffer = vec![7; length];
    assert_eq!(client.session.copy_payload(&mut buffer), 100);
    client.session.handle_payload(Bytes::from(buffer));
    client.run();
    let super::Command::Write { data, .. } = &client.requests[0].command else {
        panic!("{:?}", client.requests);
    };
    assert_eq!(crate::testing::summary(data), " 09*100 07*1048476");
    // The next is likely to be large too.
    assert_eq!(client.session.poll_want(), Want::Bytes { most: 4096 });
    client.request(request(Code::Read, 2, 0, 1), &[]);
    assert_eq!(client.session.poll_want(), Want::Bytes { most: usize::MAX });
}

#[test]
fn a_large_payload_may_also_arrive_in_pieces() {
    let mut client = Client::simple();
    client.send(&bytes(request(Code::Write, 1, 0, 1 << 20).encode()));
    for _ in 0..(1 << 20) / 65536 {
        assert!(client.requests.is_empty());
        client.send(&vec![5; 65536]);
    }
    assert_eq!(client.requests.len(), 1);
}
