//! Writes messages as QEMU does: one line each, a blank after `:` and `,`, ASCII only.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

/// Appends `message` and a line end to `out`.
pub(crate) fn write_line(out: &mut BytesMut, message: &impl Serialize) {
    let mut serializer = Serializer::with_formatter(out.writer(), Style);
    let written = message.serialize(&mut serializer);
    written.expect("memory takes every write, and every map of ours has string keys");
    out.put_slice(b"\r\n");
}

struct Style;

impl Formatter for Style {
    fn begin_array_value<W>(&mut self, writer: &mut W, first: bool) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        separate(writer, first)
    }

    fn begin_object_key<W>(&mut self, writer: &mut W, first: bool) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        separate(writer, first)
    }

    fn begin_object_value<W>(&mut self, writer: &mut W) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        for char in fragment.chars() {
            if char.is_ascii() && char != '\u{7f}' {
                write!(writer, "{char}")?;
                continue;
            }
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04X}")?;
            }
        }
        Ok(())
    }
}

fn separate<W>(writer: &mut W, first: bool) -> io::Result<()>
where
    W: ?Sized + Write,
{
    if first {
        Ok(())
    } else {
        writer.write_all(b", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_look_like_qemus() {
        let message = json!({"a": [1, "é\u{7f}😀\n"], "b": {}, "c": {"d": null, "e": true}});
        let mut out = BytesMut::new();
        write_line(&mut out, &message);
        assert_eq!(
            out,
            "{\"a\": [1, \"\\u00E9\\u007F\\uD83D\\uDE00\\n\"], \"b\": {}, \
             \"c\": {\"d\": null, \"e\": true}}\r\n"
        );
    }
}
