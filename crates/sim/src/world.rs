//! The simulated world: hosts with disks, a network between them, one clock, one seed.
//!
//! A host runs one process at a time. Killing it ends its tasks and closes its connections; what it
//! had written is still in the host's cache. Cutting the power loses that as well, and the
//! peers hear nothing.

use crate::disk::{Disks, Temper};
use crate::executor::{Executor, Life, Order, Stuck};
use crate::network::Internet;
use crate::rng::Rng;
use drivers::ports::{Ports, Random};
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// How the world behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Who is polled next.
    pub order: Order,
    /// How disk operations go.
    pub disk: Temper,
    /// How long a byte is on its way at most.
    pub network: Duration,
    /// Polls before a run counts as spinning.
    pub polls: u64,
}

impl Options {
    /// Nothing takes any time and everything happens in the order it was asked for: for scripts that
    /// people read.
    pub fn orderly() -> Options {
        Options {
            order: Order::Fifo,
            disk: Temper {
                least: Duration::ZERO,
                most: Duration::ZERO,
                tears: false,
            },
            network: Duration::ZERO,
            polls: 10_000_000,
        }
    }

    /// Everything takes some time and happens in any order.
    pub fn unruly() -> Options {
        Options {
            order: Order::Random,
            disk: Temper {
                least: Duration::from_micros(5),
                most: Duration::from_micros(200),
                tears: true,
            },
            network: Duration::from_micros(100),
            polls: 10_000_000,
        }
    }
}

/// The world. Dropping it ends everything in it.
pub struct World {
    executor: Executor,
    internet: Internet,
    options: Options,
    rng: Rng,
}

impl World {
    /// The world of `seed`.
    pub fn new(seed: u64, options: Options) -> World {
        let rng = Rng::new(seed);
        let executor = Executor::new(rng.fork(), options.order, options.polls);
        World {
            internet: Internet::new(&executor, rng.fork(), options.network),
            executor,
            options,
            rng,
        }
    }

    /// A new host, up, with empty disks.
    pub fn host(&self, name: &str) -> Host {
        let disks = Disks::new(&self.executor, name, self.rng.fork(), self.options.disk);
        Host {
            name: name.to_owned(),
            executor: self.executor.clone(),
            internet: self.internet.clone(),
            disks,
            identities: Rc::new(Identities(self.rng.fork())),
            life: RefCell::new(self.executor.life(name)),
        }
    }

    /// Runs `main` to its end.
    ///
    /// # Errors
    ///
    /// [`Stuck`] if it cannot get there.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> Result<T, Stuck> {
        self.executor.run(main)
    }

    /// The thread everything runs on.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The network between the hosts.
    pub fn internet(&self) -> &Internet {
        &self.internet
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.executor.clear();
    }
}

/// A host.
pub struct Host {
    name: String,
    executor: Executor,
    internet: Internet,
    disks: Disks,
    identities: Rc<Identities>,
    life: RefCell<Life>,
}

impl Host {
    /// Its name, by which others reach it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ports of its present process.
    pub fn ports(&self) -> Ports {
        Ports {
            runtime: Rc::new(self.life.borrow().clone()),
            files: Rc::new(self.disks.clone()),
            network: self.internet.host(&self.name),
            random: self.identities.clone(),
        }
    }

    /// Its disks.
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    /// Kills its process; the next one starts with [`Host::ports`].
    pub fn kill(&self) {
        self.internet.kill(&self.name);
        self.end_process();
    }

    /// Cuts its power.
    pub fn power_cut(&self) {
        self.internet.power_cut(&self.name);
        self.end_process();
        self.disks.power_cut();
    }

    /// Lets it come up again after a power cut.
    pub fn power_on(&self) {
        self.internet.power_on(&self.name);
    }

    fn end_process(&self) {
        let fresh = self.executor.life(&self.name);
        self.life.replace(fresh).end();
    }

    /// Stops its process (SIGSTOP).
    pub fn stop(&self) {
        self.life.borrow().stop();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.life.borrow().resume();
    }
}

/// Identities that anybody with the seed can guess.
struct Identities(Rng);

impl Random for Identities {
    fn identity(&self) -> [u8; 16] {
        let bits = u128::from(self.0.next()) << 64 | u128::from(self.0.next());
        bits.to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::ports::Address;

    #[test]
    fn a_killed_process_takes_its_tasks_and_connections_with_it() {
        let world = World::new(1, Options::unruly());
        let (server, client) = (world.host("server"), world.host("client"));
        let old = server.ports();
        let listen = Address::Inet {
            host: String::new(),
            port: 10809,
        };
        let reach = Address::Inet {
            host: "server".into(),
            port: 10809,
        };
        let ended = world.run(async {
            let network = old.network.clone();
            old.runtime.spawn(Box::pin(async move {
                let listener = network.listen(&listen).await.unwrap();
                let _stream = listener.accept().await.unwrap();
                std::future::pending::<()>().await;
            }));
            world.executor().sleep(Duration::from_millis(1)).await;
            let stream = client.ports().network.connect(&reach).await.unwrap();
            world.executor().sleep(Duration::from_millis(1)).await;
            server.kill();
            stream
                .read(block::Buffer::with_capacity(1))
                .await
                .unwrap()
                .len()
        });
        assert_eq!(ended, Ok(0), "the end of the stream");
        assert!(old.runtime.spawn(Box::pin(async {})).is_finished());
        let fresh = server.ports().runtime;
        assert!(!fresh.spawn(Box::pin(async {})).is_finished());
    }

    #[test]
    fn identities_come_from_the_seed() {
        let identity = |seed| {
            World::new(seed, Options::unruly())
                .host("a")
                .ports()
                .random
                .identity()
        };
        assert_eq!(identity(1), identity(1));
        assert_ne!(identity(1), identity(2));
    }
}
