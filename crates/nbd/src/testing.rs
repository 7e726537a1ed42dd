//! Helpers of the tests: streams as transcripts.

use crate::wire::{
    Chunk, ChunkHeader, ChunkKind, Cookie, ExportNameReply, OptionReply, ReplyHeader, ReplyMagic,
    ServerHello, SimpleReply,
};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Prints what a server sends, one line a message.
#[derive(Default)]
pub(crate) struct ServerStream {
    bytes: BytesMut,
    greeted: bool,
    /// The next bytes answer `NBD_OPT_EXPORT_NAME`, with this many bytes of padding.
    pub(crate) export_name: Option<usize>,
    /// Lengths of the reads in flight, for simple replies.
    pub(crate) reads: BTreeMap<Cookie, usize>,
}

impl ServerStream {
    /// Takes the next bytes, prints every message that is whole.
    pub(crate) fn print(&mut self, parts: &[Bytes], transcript: &mut String) {
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        while let Some(line) = self.message() {
            writeln!(transcript, "S {line}").unwrap();
        }
    }

    /// Whether every byte belonged to a whole message.
    pub(crate) fn is_whole(&self) -> bool {
        self.bytes.is_empty()
    }

    fn array<const N: usize>(&self) -> Option<[u8; N]> {
        self.bytes.first_chunk().copied()
    }

    fn message(&mut self) -> Option<String> {
        if !self.greeted {
            let hello = ServerHello::parse(self.array()?).unwrap();
            self.greeted = true;
            drop(self.bytes.split_to(ServerHello::LENGTH));
            return Some(format!("hello {:?}", hello.flags));
        }
        if let Some(padding) = self.export_name {
            let reply = ExportNameReply::parse(self.array()?);
            let message = self.body(ExportNameReply::LENGTH, padding)?;
            assert!(message.iter().all(|byte| *byte == 0));
            self.export_name = None;
            return Some(format!(
                "size {} {:?} padding {padding}",
                reply.size, reply.flags
            ));
        }
        match self.array::<4>()? {
            [0, 3, 0xe8, 0x89] => {
                let header = ReplyHeader::parse(self.array()?).unwrap();
                let data =
                    self.body(ReplyHeader::LENGTH, usize::try_from(header.length).unwrap())?;
                let reply = OptionReply::parse(header.kind, &data).unwrap();
                Some(format!("{:?} {reply:?}", header.option))
            }
            magic => match ReplyMagic::parse(magic).unwrap() {
                ReplyMagic::Simple => self.simple(),
                ReplyMagic::Structured => self.chunk(),
            },
        }
    }

    fn simple(&mut self) -> Option<String> {
        let SimpleReply { cookie, error } = SimpleReply::parse(self.array()?);
        let length = match error {
            None => self.reads.get(&cookie).copied().unwrap_or(0),
            Some(_) => 0,
        };
        let data = self.body(SimpleReply::LENGTH, length)?;
        let result = error.map_or("ok".to_owned(), |error| error.to_string());
        Some(format!("simple {cookie:?} {result}{}", summary(&data)))
    }

    fn chunk(&mut self) -> Option<String> {
        let header = ChunkHeader::parse(self.array()?).unwrap();
        let length = usize::try_from(header.length).unwrap();
        let payload = self.body(ChunkHeader::LENGTH, length)?;
        let payload = if header.kind == ChunkKind::OffsetData {
            let (offset, data) = payload.split_first_chunk::<8>().unwrap();
            format!("data {}{}", u64::from_be_bytes(*offset), summary(data))
        } else {
            format!(
                "{:?}",
                Chunk::parse(header.kind, &payload, usize::MAX).unwrap()
            )
        };
        Some(format!(
            "chunk {:?} {:?} {payload}",
            header.cookie, header.flags
        ))
    }

    /// The body of a message, if it is whole; then header and body are consumed.
    fn body(&mut self, header: usize, body: usize) -> Option<BytesMut> {
        if self.bytes.len() < header + body {
            return None;
        }
        drop(self.bytes.split_to(header));
        Some(self.bytes.split_to(body))
    }
}

/// Runs of equal bytes: ` 61*4096 00*512`.
pub(crate) fn summary(data: &[u8]) -> String {
    data.chunk_by(|a, b| a == b)
        .fold(String::new(), |text, run| {
            format!("{text} {:02x}*{}", run[0], run.len())
        })
}
