//! The QMP session against a client that sends anything at all, in chunks of any size; and the
//! same bytes as flags and as a line of the human monitor.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qmp::types::Nothing;
use qmp::{Session, flags, hmp, keyval};

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first() else {
        return;
    };
    let step = usize::from(*step).max(1);
    let whole = converse(stream, stream.len().max(1));
    assert_eq!(converse(stream, step), whole, "chunks change nothing");
    assert!(
        whole
            .1
            .ends_with(b"{\"return\": {}, \"id\": \"resynchronised\"}\r\n")
    );
    for line in whole
        .1
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        serde_json::from_slice::<serde_json::Value>(line).expect("every line is JSON");
    }
    if let Ok(text) = str::from_utf8(stream) {
        read(text);
    }
});

/// The commands and the output of a negotiated session that is sent `stream` and then, after the
/// byte that resynchronises, one good command.
fn converse(stream: &[u8], step: usize) -> (Vec<String>, Vec<u8>) {
    let mut client = Client {
        session: Session::new(),
        commands: Vec::new(),
        output: Vec::new(),
    };
    client.send(b"{'execute':'qmp_capabilities'}");
    for chunk in stream.chunks(step) {
        client.send(chunk);
    }
    client.send(b"\xff\n{\"execute\":\"quit\",\"id\":\"resynchronised\"}");
    assert!(!client.session.is_overrun(), "the client reads");
    (client.commands, client.output)
}

struct Client {
    session: Session,
    commands: Vec<String>,
    output: Vec<u8>,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        assert!(self.session.wants_bytes());
        self.session.handle_bytes(bytes);
        loop {
            let command = self.session.poll_command();
            if let Some(command) = &command {
                self.commands.push(format!("{command:?}"));
                self.session.reply(Ok(Nothing {}));
            }
            let output = self.session.poll_transmit();
            if command.is_none() && output.is_none() {
                return;
            }
            self.output.extend(output.into_iter().flatten());
        }
    }
}

fn read(text: &str) {
    let _ = flags::blockdev(text);
    let _ = flags::export(text);
    let _ = flags::chardev(text);
    let _ = keyval::arguments(text.split(' '));
    let _ = hmp::parse(text);
    let _ = hmp::qemu_io::parse(text);
}
