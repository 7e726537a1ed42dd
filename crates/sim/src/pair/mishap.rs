//! What goes wrong with a pair, and how its secondary comes back.

use super::{LOCAL, Pair, Peer, set_up};
use crate::run::Stage;
use crate::script::{Command, Mishap};
use std::time::Duration;

/// How long clients take to come back at most.
const RECONNECTION: Duration = Duration::from_millis(500);
/// How long a silence lasts; afterwards what was sent meanwhile arrives.
const SILENCE: Duration = Duration::from_secs(set_up::FORWARD_SECONDS + 1);

impl Pair<'_> {
    pub(super) async fn go_wrong(&self, mishap: Mishap) {
        let (net, disks) = (self.world.internet(), self.secondary.disks());
        match mishap {
            Mishap::Fault(fault) => match &self.primary {
                Some(primary) if fault.file == LOCAL => primary.host.disks().inject(fault),
                _ => disks.inject(fault),
            },
            Mishap::Space(bytes) => disks.limit_space(bytes),
            Mishap::Heal => {
                disks.heal();
                net.heal();
            }
            Mishap::Kill => {
                self.secondary.kill();
                self.come_back().await;
            }
            Mishap::PowerCut => {
                self.secondary.power_cut();
                self.secondary.power_on();
                self.come_back().await;
            }
            Mishap::Lose(bytes) => {
                self.cut_off.set(true);
                net.cut(self.writer(), "secondary", bytes);
            }
            Mishap::Silence => {
                self.cut_off.set(true);
                net.silence(self.writer(), "secondary");
                self.world.executor().sleep(SILENCE).await;
                // A client waits for ever; a primary has given up by now.
                net.cut("peer", "secondary", 0);
                net.heal();
            }
            Mishap::PeerDies => {
                self.cut_off.set(true);
                match &self.primary {
                    None => drop(net.cut("peer", "secondary", 0)),
                    Some(primary) => primary.host.kill(),
                }
            }
            Mishap::Hang(time) => {
                self.secondary.stop();
                self.world
                    .executor()
                    .sleep(Duration::from_millis(time))
                    .await;
                self.secondary.resume();
            }
        }
    }

    /// The host that writes to the secondary disk.
    fn writer(&self) -> &'static str {
        match self.build.peer {
            Peer::Client => "peer",
            Peer::Primary => "primary",
        }
    }

    /// Starts the secondary's daemon again; if that is killed in turn, whoever did so starts it. What
    /// it was doing decides what is left.
    async fn come_back(&self) {
        self.cut_off.set(true);
        self.secondary.disks().heal();
        let start = self.daemon.starts.get().saturating_add(1);
        self.daemon.starts.set(start);
        self.daemon.is_up.set(false);
        let before = self.daemon.stage.get();
        let monitor = set_up::secondary(&self.secondary.ports(), self.build.top).await;
        if self.daemon.starts.get() == start {
            match monitor {
                Ok(monitor) => drop(self.daemon.monitor.replace(monitor)),
                Err(error) => panic!("the daemon is not back: {error}"),
            }
            self.world.executor().sleep(RECONNECTION).await;
        }
        if self.daemon.starts.get() == start {
            self.daemon.is_up.set(true);
            self.look().await;
            self.find_out(before).await;
        }
        while !self.daemon.is_up.get() {
            self.world.executor().sleep(Duration::from_millis(1)).await;
        }
    }

    /// Nothing in the status tells that the contents are unknown, but a start must be refused.
    async fn find_out(&self, before: Stage) {
        if before == Stage::Running && self.daemon.stage.get() == Stage::None {
            let start = self.carry_out(Command::Start).await;
            let found = if start.is_err() {
                Stage::Lost
            } else {
                Stage::Running
            };
            self.daemon.stage.set(found);
        }
    }
}
