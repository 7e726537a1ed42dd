//! The `blkdebug` driver: an ordinary node that makes requests fail, wait, tear or lie, by rules.
//!
//! Failure tests are written with it, inside and outside of the process. Rules can be added and
//! removed while requests are in flight ([`Blkdebug::of`]).

mod rules;

pub use rules::{Event, Fault, Rule, Rules, Transition, Verdict};

use crate::ports::Ports;
use block::{
    Answer, ByteRange, Capabilities, Child, Driver, Error, ErrorKind, Extent, Limits, Node, Op,
    WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Options of the driver.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `inject-error` and our own faults, in the order they are tried.
    pub rules: Vec<Rule>,
    /// `set-state`.
    pub transitions: Vec<Transition>,
    /// `align`: what requests must be aligned to, in bytes; `None`: any way.
    pub align: Option<u64>,
}

/// The `blkdebug` driver.
pub struct Blkdebug {
    image: Rc<Child>,
    rules: RefCell<Rules>,
    align: u64,
    ports: Ports,
}

/// Largest `align` in bytes: every request holds whole blocks of it in memory.
const MAX_ALIGN: u64 = 32 << 20;

impl Blkdebug {
    /// A node over `image`.
    ///
    /// # Errors
    ///
    /// If `align` is no power of two or too large, or the image's length no multiple of it.
    pub fn new(image: Rc<Child>, options: Options, ports: Ports) -> Result<Blkdebug, Error> {
        let align = options.align.unwrap_or(1);
        let length = image.length();
        if !align.is_power_of_two() || align > MAX_ALIGN || !length.is_multiple_of(align) {
            let message = format!(
                "align {align} must be a power of two that divides the length, {length} bytes, and \
                 at most {MAX_ALIGN}"
            );
            return Err(Error::with_message(ErrorKind::InvalidRequest, message));
        }
        Ok(Blkdebug {
            image,
            rules: RefCell::new(Rules::new(options.rules, options.transitions)),
            align,
            ports,
        })
    }

    /// The driver of `node`, if it is this one.
    pub fn of(node: &Node) -> Option<&Blkdebug> {
        node.driver().capabilities().any?.downcast_ref()
    }

    /// Adds a rule behind the others.
    pub fn add_rule(&self, rule: Rule) {
        self.rules.borrow_mut().add(rule);
    }

    /// Removes all rules.
    pub fn clear_rules(&self) {
        self.rules.borrow_mut().clear();
    }

    /// The state now.
    pub fn state(&self) -> u32 {
        self.rules.borrow().state()
    }

    /// Applies the rules to a request; tells what else is to become of it.
    async fn meet(&self, op: Op, range: ByteRange) -> Result<Passed, Error> {
        let verdict = self.rules.borrow_mut().judge(op, range);
        if !verdict.delay.is_zero() {
            self.ports.runtime.sleep(verdict.delay).await;
        }
        match verdict.fault {
            None | Some(Fault::Delay(_)) => Ok(Passed::Whole),
            Some(Fault::LoseFlush) => Ok(Passed::Lost),
            Some(Fault::Tear { bytes, errno }) => Ok(Passed::Torn { bytes, errno }),
            Some(Fault::Fail { errno, immediately }) => {
                if !immediately {
                    self.ports.runtime.sleep(Duration::ZERO).await;
                }
                Err(injected(errno))
            }
        }
    }
}

fn injected(errno: i32) -> Error {
    Error::from_errno(errno, "injected by blkdebug")
}

/// How much of a request goes on to the child.
enum Passed {
    /// All of it.
    Whole,
    /// A write's first bytes, before it fails.
    Torn { bytes: u64, errno: i32 },
    /// Nothing, and nobody is told.
    Lost,
}

impl Driver for Blkdebug {
    fn name(&self) -> &'static str {
        "blkdebug"
    }

    fn limits(&self) -> Limits {
        let Ok(image) = self.image.node() else {
            return Limits::of_length(0);
        };
        let limits = image.limits();
        Limits {
            request_alignment: self.align,
            preferred_alignment: limits.preferred_alignment.max(self.align),
            // Flushes that go with a write meet the rules too: the node asks for them.
            fua: false,
            ..limits
        }
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        Box::pin(async move {
            self.meet(Op::Read, range).await?;
            self.image.read(range).await
        })
    }

    fn write(&self, offset: u64, mut data: Bytes, flags: WriteFlags) -> Answer<'_, ()> {
        Box::pin(async move {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let range = ByteRange::between(offset, offset.saturating_add(length));
            match self.meet(Op::Write, range).await? {
                Passed::Whole | Passed::Lost => self.image.write(offset, data, flags).await,
                Passed::Torn { bytes, errno } => {
                    data.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
                    self.image.write(offset, data, flags).await?;
                    Err(injected(errno))
                }
            }
        })
    }

    fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Answer<'_, ()> {
        Box::pin(async move {
            self.meet(Op::WriteZeroes, range).await?;
            self.image.write_zeroes(range, flags).await
        })
    }

    fn discard(&self, range: ByteRange) -> Answer<'_, ()> {
        Box::pin(async move {
            self.meet(Op::Discard, range).await?;
            self.image.discard(range).await
        })
    }

    fn flush(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let nothing = ByteRange::between(0, 0);
            match self.meet(Op::Flush, nothing).await? {
                Passed::Lost => Ok(()),
                Passed::Whole | Passed::Torn { .. } => self.image.flush().await,
            }
        })
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        Box::pin(async move {
            self.meet(Op::BlockStatus, range).await?;
            self.image.block_status(range).await
        })
    }

    fn children(&self) -> Vec<Rc<Child>> {
        vec![Rc::clone(&self.image)]
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            any: Some(self),
            ..Capabilities::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{FileDriver, Options as FileOptions};
    use crate::os;
    use block::{ChildRole, NodeOptions};

    const PLAIN: WriteFlags = WriteFlags {
        fua: false,
        serialise: false,
    };
    const FUA: WriteFlags = WriteFlags {
        fua: true,
        serialise: false,
    };

    /// Runs `test` on a `blkdebug` node over a file of zeroes.
    fn with_rules<Fut: Future<Output = ()>>(
        rules: Vec<Rule>,
        test: impl FnOnce(Rc<Node>, Ports) -> Fut,
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(65536).unwrap();
        os::run(|ports| async move {
            let below = FileOptions {
                path: file.path().to_owned(),
                ..FileOptions::default()
            };
            let below = FileDriver::open(&ports, &below).await.unwrap();
            let below = Node::new("file0", Box::new(below), NodeOptions::default());
            let child = Child::unrestricted("image", ChildRole::Filtered, below);
            let options = Options {
                rules,
                ..Options::default()
            };
            let driver = Blkdebug::new(child, options, ports.clone()).unwrap();
            let node = Node::new("debug0", Box::new(driver), NodeOptions::default());
            test(node, ports).await;
        })
        .unwrap();
    }

    fn fail(errno: i32) -> Fault {
        Fault::Fail {
            errno,
            immediately: false,
        }
    }

    #[test]
    fn an_injected_error_names_the_node_and_leaves_the_child_alone() {
        let rule = Rule {
            ops: vec![Op::Write],
            ..Rule::new(fail(28))
        };
        with_rules(vec![rule], |node, _| async move {
            let data = Bytes::from(vec![1; 4096]);
            let failed = node.write(4096, data.clone(), PLAIN).await.unwrap_err();
            assert_eq!(failed.errno(), 28);
            assert_eq!(
                failed.to_string(),
                "write of 4096 bytes at offset 4096 on node 'debug0': no space left on device: \
                 injected by blkdebug"
            );
            let range = ByteRange::between(4096, 8192);
            assert_eq!(node.read(range).await.unwrap(), vec![0; 4096]);

            Blkdebug::of(&node).unwrap().clear_rules();
            node.write(4096, data.clone(), PLAIN).await.unwrap();
            assert_eq!(node.read(range).await.unwrap(), data);
        });
    }

    #[test]
    fn a_torn_write_stores_its_first_bytes_and_fails() {
        let tear = Fault::Tear {
            bytes: 512,
            errno: 5,
        };
        with_rules(vec![Rule::new(tear)], |node, _| async move {
            let failed = node.write(0, Bytes::from(vec![1; 4096]), PLAIN).await;
            assert_eq!(failed.unwrap_err().errno(), 5);
            let read = node.read(ByteRange::between(0, 4096)).await.unwrap();
            assert_eq!(read, [vec![1; 512], vec![0; 3584]].concat());
        });
    }

    #[test]
    fn a_flush_that_goes_with_a_write_meets_the_rules_and_may_be_lost() {
        let broken = Rule {
            ops: vec![Op::Flush],
            ..Rule::new(fail(5))
        };
        let rules = vec![
            Rule {
                once: true,
                ..Rule::new(Fault::LoseFlush)
            },
            broken,
        ];
        with_rules(rules, |node, _| async move {
            let data = Bytes::from_static(b"x");
            node.write(0, data.clone(), FUA).await.unwrap();
            assert_eq!(node.write(0, data, FUA).await.unwrap_err().errno(), 5);
            assert_eq!(node.flush().await.unwrap_err().errno(), 5);
        });
    }

    #[test]
    fn a_delayed_request_waits_and_then_succeeds() {
        let delay = Duration::from_millis(3);
        with_rules(
            vec![Rule::new(Fault::Delay(delay))],
            |node, ports| async move {
                let start = ports.runtime.now();
                node.read(ByteRange::between(0, 1)).await.unwrap();
                assert!(ports.runtime.now() >= start.saturating_add(delay));
            },
        );
    }

    #[test]
    fn the_alignment_asked_for_makes_the_node_read_modify_and_write() {
        with_rules(vec![], |below, ports| async move {
            let child = Child::unrestricted("image", ChildRole::Filtered, below);
            let options = Options {
                align: Some(4096),
                rules: vec![Rule {
                    ops: vec![Op::Read],
                    ..Rule::new(fail(5))
                }],
                ..Options::default()
            };
            let driver = Blkdebug::new(child, options, ports).unwrap();
            let node = Node::new("debug1", Box::new(driver), NodeOptions::default());
            let data = Bytes::from(vec![1; 4096]);
            node.write(0, data.clone(), PLAIN).await.unwrap();
            assert!(
                node.write(1, data, PLAIN).await.is_err(),
                "it must read first"
            );
        });
    }
}
