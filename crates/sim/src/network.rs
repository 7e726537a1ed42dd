//! A network between hosts: byte streams that arrive late, in pieces, or not at all.
//!
//! What can happen to a connection, besides being closed: it is lost at any byte
//! ([`Internet::cut`]); one host's bytes no longer reach the other ([`Internet::silence`]), which is
//! how a partition or a hung peer looks from outside; its host loses power, after which the peer hears
//! nothing, and a refusal only once the host is up again. Order within a direction is kept.

mod pipe;
mod stream;

use crate::executor::Executor;
use crate::rng::Rng;
use drivers::ports::{Address, Listener, Network, Stream};
use futures_util::future::LocalBoxFuture;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;
use stream::{Link, Side, SimStream};

/// First port that is picked for a listener that asks for any.
const FIRST_PORT: u16 = 49152;

/// All hosts' network. Clones share it.
#[derive(Clone)]
pub struct Internet {
    state: Rc<State>,
}

struct State {
    executor: Executor,
    rng: Rng,
    /// Longest time a byte is on its way.
    latency: Duration,
    listeners: RefCell<BTreeMap<Place, Weak<Backlog>>>,
    links: RefCell<Vec<Weak<Link>>>,
    /// `(from, to)`: what `from` sends does not reach `to`.
    silent: RefCell<BTreeSet<(String, String)>>,
    down: RefCell<BTreeSet<String>>,
    /// Those who wait for the network to change.
    waiting: RefCell<Vec<Waker>>,
    next_port: Cell<u16>,
}

/// Where somebody listens: the host, and the address on it.
type Place = (String, Address);

impl Internet {
    /// A network where a byte is on its way for at most `latency`.
    pub fn new(executor: &Executor, rng: Rng, latency: Duration) -> Internet {
        Internet {
            state: Rc::new(State {
                executor: executor.clone(),
                rng,
                latency,
                listeners: RefCell::default(),
                links: RefCell::default(),
                silent: RefCell::default(),
                down: RefCell::default(),
                waiting: RefCell::default(),
                next_port: Cell::new(FIRST_PORT),
            }),
        }
    }

    /// The network as seen from a host; other hosts reach it by its name.
    pub fn host(&self, name: &str) -> Rc<dyn Network> {
        Rc::new(HostNetwork {
            internet: self.clone(),
            host: name.to_owned(),
        })
    }

    /// From now on nothing that `from` sends reaches `to`; it waits on the way.
    pub fn silence(&self, from: &str, to: &str) {
        let pair = (from.to_owned(), to.to_owned());
        self.state.silent.borrow_mut().insert(pair);
    }

    /// Everything reaches everybody again.
    pub fn heal(&self) {
        self.state.silent.borrow_mut().clear();
        self.wake_all();
    }

    /// Loses every connection between two hosts once `from` has sent `bytes` more on it. Returns how
    /// many there are.
    pub fn cut(&self, from: &str, to: &str, bytes: usize) -> usize {
        let links = self.links(|link| link.side_from(from, to).is_some());
        for link in &links {
            let Some(side) = link.side_from(from, to) else {
                continue;
            };
            link.pipe(side).borrow_mut().cut_after(bytes);
            if bytes == 0 {
                link.lose(true);
            }
        }
        links.len()
    }

    /// The host's process is gone: the kernel closes its sockets.
    pub fn kill(&self, host: &str) {
        self.state
            .listeners
            .borrow_mut()
            .retain(|(listener, _), _| listener != host);
        for link in self.links(|_| true) {
            if let Some(side) = link.side_of(host) {
                link.close(side);
            }
        }
    }

    /// The host loses power: its peers hear nothing any more.
    pub fn power_cut(&self, host: &str) {
        self.state.down.borrow_mut().insert(host.to_owned());
        let mut listeners = self.state.listeners.borrow_mut();
        listeners.retain(|(listener, _), _| listener != host);
    }

    /// The host is up again; connections from before are lost to its peers.
    pub fn power_on(&self, host: &str) {
        self.state.down.borrow_mut().remove(host);
        for link in self.links(|link| link.hosts.iter().any(|name| name == host)) {
            link.lose(false);
        }
        self.wake_all();
    }

    fn links(&self, wanted: impl Fn(&Link) -> bool) -> Vec<Rc<Link>> {
        let mut links = self.state.links.borrow_mut();
        links.retain(|link| link.strong_count() > 0);
        let alive = links.iter().filter_map(Weak::upgrade);
        alive.filter(|link| wanted(link)).collect()
    }

    fn wake_all(&self) {
        self.state.waiting.take().into_iter().for_each(Waker::wake);
        for link in self.links(|_| true) {
            link.wake_all();
        }
    }

    /// Whether bytes from `from` reach `to` at present.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let down = self.state.down.borrow();
        if down.contains(from) || down.contains(to) {
            return false;
        }
        let silent = self.state.silent.borrow();
        silent.is_empty() || !silent.contains(&(from.to_owned(), to.to_owned()))
    }

    fn some_time(&self) -> Duration {
        let most = u64::try_from(self.state.latency.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.state.rng.below(most.saturating_add(1)))
    }

    /// Opens a connection; waits while the other host cannot be reached.
    async fn connect(&self, from: String, to: Place) -> io::Result<Rc<dyn Stream>> {
        self.state.executor.sleep(self.some_time()).await;
        poll_fn(|cx| {
            if self.reaches(&from, &to.0) && self.reaches(&to.0, &from) {
                return Poll::Ready(());
            }
            self.state.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
        let listener = self
            .state
            .listeners
            .borrow()
            .get(&to)
            .and_then(Weak::upgrade);
        let backlog = listener.ok_or(ErrorKind::ConnectionRefused)?;
        let link = Rc::new(Link {
            hosts: [from, to.0],
            pipes: Default::default(),
        });
        self.state.links.borrow_mut().push(Rc::downgrade(&link));
        backlog.push(SimStream::new(self, &link, Side::Second));
        Ok(Rc::new(SimStream::new(self, &link, Side::First)))
    }

    fn listen(&self, host: &str, address: &Address) -> io::Result<Rc<dyn Listener>> {
        let address = match address {
            Address::Inet { host, port: 0 } => {
                let port = self.state.next_port.get();
                self.state.next_port.set(port.wrapping_add(1));
                Address::Inet {
                    host: host.clone(),
                    port,
                }
            }
            other @ (Address::Unix(_) | Address::Inet { .. }) => other.clone(),
        };
        let place = (host.to_owned(), on_host(&address));
        let mut listeners = self.state.listeners.borrow_mut();
        if listeners
            .get(&place)
            .is_some_and(|known| known.strong_count() > 0)
        {
            return Err(ErrorKind::AddrInUse.into());
        }
        let backlog = Rc::new(Backlog::default());
        listeners.insert(place, Rc::downgrade(&backlog));
        Ok(Rc::new(SimListener { backlog, address }))
    }
}

/// The network as one host sees it.
struct HostNetwork {
    internet: Internet,
    host: String,
}

impl Network for HostNetwork {
    fn connect(&self, address: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Stream>>> {
        let host = match address {
            Address::Inet { host, .. } if !is_local(host) => host.clone(),
            Address::Inet { .. } | Address::Unix(_) => self.host.clone(),
        };
        let place = (host, on_host(address));
        Box::pin(self.internet.connect(self.host.clone(), place))
    }

    fn listen(&self, address: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Listener>>> {
        let listener = self.internet.listen(&self.host, address);
        Box::pin(async { listener })
    }
}

/// Whether a host name means the host itself.
fn is_local(host: &str) -> bool {
    matches!(
        host,
        "" | "localhost" | "127.0.0.1" | "0.0.0.0" | "::" | "::1"
    )
}

/// An address without the host: listeners are found by port, whatever name they were reached by.
fn on_host(address: &Address) -> Address {
    match address {
        Address::Inet { port, .. } => Address::Inet {
            host: String::new(),
            port: *port,
        },
        Address::Unix(path) => Address::Unix(path.clone()),
    }
}

/// Connections that nobody has accepted yet.
#[derive(Default)]
struct Backlog {
    waiting: RefCell<VecDeque<SimStream>>,
    acceptor: RefCell<Option<Waker>>,
}

impl Backlog {
    fn push(&self, stream: SimStream) {
        self.waiting.borrow_mut().push_back(stream);
        self.acceptor.take().into_iter().for_each(Waker::wake);
    }
}

/// A listening socket.
struct SimListener {
    backlog: Rc<Backlog>,
    address: Address,
}

impl Listener for SimListener {
    fn accept(&self) -> LocalBoxFuture<'_, io::Result<Rc<dyn Stream>>> {
        Box::pin(poll_fn(|cx| {
            if let Some(stream) = self.backlog.waiting.borrow_mut().pop_front() {
                let stream: Rc<dyn Stream> = Rc::new(stream);
                return Poll::Ready(Ok(stream));
            }
            self.backlog.acceptor.replace(Some(cx.waker().clone()));
            Poll::Pending
        }))
    }

    fn address(&self) -> Address {
        self.address.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Order;
    use block::Buffer;
    use bytes::Bytes;
    use futures_util::future::join;

    fn internet(seed: u64) -> (Executor, Internet) {
        let rng = Rng::new(seed);
        let executor = Executor::new(rng.fork(), Order::Random, 100_000);
        let internet = Internet::new(&executor, rng, Duration::from_millis(1));
        (executor, internet)
    }

    /// A connection from host `a` to host `b`.
    async fn pair(net: &Internet) -> (Rc<dyn Stream>, Rc<dyn Stream>) {
        let any = Address::Inet {
            host: String::new(),
            port: 0,
        };
        let listener = net.host("b").listen(&any).await.unwrap();
        let Address::Inet { port, .. } = listener.address() else {
            panic!("not an internet address")
        };
        let address = Address::Inet {
            host: "b".into(),
            port,
        };
        let a = net.host("a");
        let (here, there) = join(a.connect(&address), listener.accept()).await;
        (here.unwrap(), there.unwrap())
    }

    /// Reads until `stream` ends, with the error it ended by.
    async fn read_all(stream: &dyn Stream) -> (Vec<u8>, Option<ErrorKind>) {
        let mut all = Vec::new();
        loop {
            match stream.read(Buffer::with_capacity(64)).await {
                Ok(buffer) if buffer.is_empty() => return (all, None),
                Ok(buffer) => all.extend_from_slice(buffer.filled()),
                Err(error) => return (all, Some(error.kind())),
            }
        }
    }

    #[test]
    fn bytes_arrive_whole_and_in_order_in_pieces_of_any_size() {
        for seed in 0..20 {
            let (executor, net) = internet(seed);
            let data: Vec<u8> = (0..=255).cycle().take(1 << 19).collect();
            let bytes = Bytes::from(data.clone());
            let got = executor.run(async {
                let (a, b) = pair(&net).await;
                let send = async {
                    a.write(vec![bytes.slice(..10), bytes.slice(10..)])
                        .await
                        .unwrap();
                    a.shutdown();
                };
                join(send, read_all(&*b)).await.1
            });
            assert_eq!(got.unwrap(), (data, None));
        }
    }

    #[test]
    fn a_lost_connection_delivers_a_prefix_and_tells_both_sides() {
        for seed in 0..20 {
            let (executor, net) = internet(seed);
            let got = executor.run(async {
                let (a, b) = pair(&net).await;
                assert_eq!(net.cut("a", "b", 100), 1);
                let sent = a.write(vec![Bytes::from(vec![1; 200])]).await;
                assert_eq!(sent.unwrap_err().kind(), ErrorKind::ConnectionReset);
                let answer = b.write(vec![Bytes::from_static(b"x")]).await;
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::BrokenPipe);
                read_all(&*b).await
            });
            assert_eq!(
                got.unwrap(),
                (vec![1; 100], Some(ErrorKind::ConnectionReset))
            );
        }
    }

    #[test]
    fn a_silent_host_is_heard_again_after_the_partition() {
        let (executor, net) = internet(1);
        let got = executor.run(async {
            let (a, b) = pair(&net).await;
            net.silence("a", "b");
            a.write(vec![Bytes::from_static(b"late")]).await.unwrap();
            b.write(vec![Bytes::from_static(b"x")]).await.unwrap();
            a.read(Buffer::with_capacity(1)).await.unwrap();
            assert!(futures_util::poll!(b.read(Buffer::with_capacity(9))).is_pending());
            net.heal();
            a.shutdown();
            read_all(&*b).await
        });
        assert_eq!(got.unwrap(), (b"late".to_vec(), None));
    }

    #[test]
    fn a_writer_waits_for_a_reader_that_does_not_read() {
        let (executor, net) = internet(1);
        let stuck = executor.run(async {
            let (a, _b) = pair(&net).await;
            a.write(vec![Bytes::from(vec![0; 1 << 20])]).await
        });
        assert!(matches!(stuck, Err(crate::executor::Stuck::Deadlock(_))));
    }

    #[test]
    fn after_a_power_cut_the_peer_hears_nothing_until_the_host_is_up() {
        let (executor, net) = internet(1);
        let got = executor.run(async {
            let (a, b) = pair(&net).await;
            net.power_cut("b");
            drop(b);
            let mut read = a.read(Buffer::with_capacity(1));
            executor.sleep(Duration::from_hours(1)).await;
            assert!(futures_util::poll!(&mut read).is_pending());
            net.power_on("b");
            read.await.map(|_| ()).unwrap_err().kind()
        });
        assert_eq!(got.unwrap(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn nobody_listens_and_an_address_is_taken_once() {
        let (executor, net) = internet(1);
        let path = Address::Unix("/socket".into());
        let got = executor.run(async {
            let host = net.host("a");
            let refused = host.connect(&path).await.err().unwrap().kind();
            let _first = host.listen(&path).await.unwrap();
            let taken = host.listen(&path).await.err().unwrap().kind();
            let _elsewhere = net.host("b").listen(&path).await.unwrap();
            (refused, taken)
        });
        assert_eq!(
            got.unwrap(),
            (ErrorKind::ConnectionRefused, ErrorKind::AddrInUse)
        );
    }
}
