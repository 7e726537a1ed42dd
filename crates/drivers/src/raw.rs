//! The `raw` driver: a disk as it is, or a window of it.
//!
//! ```text
//! child   |......|============|.........|
//!         0    offset    offset+size  length
//! ```
//!
//! Without a window it passes everything on as it comes, and its length is the child's, also after
//! that has changed.

use block::{
    Answer, ByteRange, Capabilities, Child, ChildRole, Driver, Error, ErrorKind, Extent, Limits,
    Resize, WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use std::rc::Rc;

/// Options of the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `offset`: where the window begins, in bytes.
    pub offset: u64,
    /// `size`: how long the window is, in bytes; `None`: up to the end of the child.
    pub size: Option<u64>,
}

impl Options {
    /// What the child is to the node: without a window it is the very same disk.
    pub fn child_role(&self) -> ChildRole {
        if *self == Options::default() {
            ChildRole::Filtered
        } else {
            ChildRole::Data
        }
    }
}

/// The `raw` driver.
pub struct Raw {
    file: Rc<Child>,
    options: Options,
}

impl Raw {
    /// A window of `file`.
    ///
    /// # Errors
    ///
    /// If the window does not lie within the child.
    pub fn new(file: Rc<Child>, options: Options) -> Result<Raw, Error> {
        let length = file.length();
        let window = ByteRange::new(options.offset, options.size.unwrap_or(0));
        if window.is_none_or(|window| window.end() > length) {
            let message = format!(
                "offset {} and size {} reach past the end of the child, which has {length} bytes",
                options.offset,
                options.size.unwrap_or(0)
            );
            return Err(Error::with_message(ErrorKind::InvalidRequest, message));
        }
        Ok(Raw { file, options })
    }

    /// The same bytes as the child counts them.
    fn below(&self, range: ByteRange) -> ByteRange {
        // Requests lie within the window, and that within the child.
        let start = range.offset().saturating_add(self.options.offset);
        ByteRange::between(start, range.end().saturating_add(self.options.offset))
    }

    /// The same bytes as the window counts them.
    fn above(&self, range: ByteRange) -> ByteRange {
        let start = range.offset().saturating_sub(self.options.offset);
        ByteRange::between(start, range.end().saturating_sub(self.options.offset))
    }
}

impl Driver for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    /// The child's limits; alignment is the child's own business.
    fn limits(&self) -> Limits {
        let Ok(child) = self.file.node() else {
            return Limits::of_length(0);
        };
        let limits = child.limits();
        let rest = limits.length.saturating_sub(self.options.offset);
        Limits {
            length: self.options.size.map_or(rest, |size| size.min(rest)),
            request_alignment: 1,
            // The node below flushes where its driver cannot.
            fua: true,
            ..limits
        }
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        Box::pin(self.file.read(self.below(range)))
    }

    fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Answer<'_, ()> {
        let offset = offset.saturating_add(self.options.offset);
        Box::pin(self.file.write(offset, data, flags))
    }

    fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Answer<'_, ()> {
        Box::pin(self.file.write_zeroes(self.below(range), flags))
    }

    fn discard(&self, range: ByteRange) -> Answer<'_, ()> {
        Box::pin(self.file.discard(self.below(range)))
    }

    fn flush(&self) -> Answer<'_, ()> {
        Box::pin(self.file.flush())
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        Box::pin(async move {
            let extents = self.file.block_status(self.below(range)).await?;
            let extents = extents.into_iter().map(|extent| Extent {
                range: self.above(extent.range),
                ..extent
            });
            Ok(extents.collect())
        })
    }

    fn children(&self) -> Vec<Rc<Child>> {
        vec![Rc::clone(&self.file)]
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            resize: Some(self),
            ..Capabilities::default()
        }
    }
}

impl Resize for Raw {
    fn resize(&self, length: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.options.size.is_some() {
                let message = "the node has a fixed 'size'; change the node below";
                return Err(Error::with_message(ErrorKind::Unsupported, message));
            }
            let Some(length) = length.checked_add(self.options.offset) else {
                return Err(ErrorKind::InvalidRequest.into());
            };
            let child = self.file.node()?;
            match child.driver().capabilities().resize {
                Some(resize) => resize.resize(length).await,
                None => Err(ErrorKind::Unsupported.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{FileDriver, Options as FileOptions};
    use crate::os;
    use block::{Node, NodeOptions};

    /// Runs `test` on a `raw` node over a file of 100 kB.
    fn on_window<Fut: Future<Output = ()>>(
        options: Options,
        direct: bool,
        test: impl FnOnce(Result<Rc<Node>, Error>) -> Fut,
    ) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(100_000).unwrap();
        os::run(|ports| async move {
            let below = FileOptions {
                path: file.path().to_owned(),
                direct,
                ..FileOptions::default()
            };
            let below = FileDriver::open(&ports, &below).await.unwrap();
            let below = Node::new("file0", Box::new(below), NodeOptions::default());
            let child = Child::unrestricted("file", options.child_role(), below);
            let raw = Raw::new(child, options);
            test(raw.map(|raw| Node::new("raw0", Box::new(raw), NodeOptions::default()))).await;
            std::fs::read(file.path()).unwrap()
        })
        .unwrap()
    }

    #[test]
    fn a_window_shows_and_changes_its_own_bytes_only() {
        for direct in [false, true] {
            let window = Options {
                offset: 1000,
                size: Some(50_001),
            };
            let contents = on_window(window, direct, |node| async move {
                let node = node.unwrap();
                assert_eq!(node.length(), 50_001);
                let whole = ByteRange::between(0, 50_001);
                let ones = Bytes::from(vec![1; 50_001]);
                node.write(0, ones.clone(), WriteFlags::default())
                    .await
                    .unwrap();
                assert_eq!(node.read(whole).await.unwrap(), ones);
                let last = ByteRange::between(50_000, 50_001);
                node.write_zeroes(last, ZeroFlags::default()).await.unwrap();
                let past = ByteRange::between(50_001, 50_002);
                let refused = node.read(past).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
                let extents = node.block_status(whole).await.unwrap();
                assert_eq!(extents.first().unwrap().range.offset(), 0);
                assert_eq!(extents.last().unwrap().range.end(), 50_001);
            });
            let mut expected = vec![0; 100_000];
            expected[1000..51_000].fill(1);
            assert!(contents == expected);
        }
    }

    #[test]
    fn without_a_size_it_follows_the_child() {
        let from = Options {
            offset: 99_000,
            size: None,
        };
        let contents = on_window(from, false, |node| async move {
            let node = node.unwrap();
            assert_eq!(node.length(), 1000);
            let resize = node.driver().capabilities().resize.unwrap();
            resize.resize(2000).await.unwrap();
            assert_eq!(node.length(), 2000);
        });
        assert_eq!(contents.len(), 101_000);
    }

    #[test]
    fn a_window_past_the_end_is_refused_with_the_numbers() {
        for (offset, size) in [(100_001, None), (50_000, Some(50_001)), (1, Some(u64::MAX))] {
            let options = Options { offset, size };
            on_window(options, false, |node| async move {
                let expected = format!(
                    "offset {offset} and size {} reach past the end of the child, which has 100000 \
                     bytes",
                    size.unwrap_or(0)
                );
                assert_eq!(node.unwrap_err().message(), expected);
            });
        }
    }
}
