//! `afterimage demo`: the main job in one command.
//!
//! Two daemons on this machine, a workload that stamps every block with its version, checkpoints
//! while it runs, `kill -9` of the primary, failover, and every block compared with the workload's
//! own record. The story is told while it happens; exit status 0 means that all of it was verified.

mod disk;
mod guest;
mod ledger;
mod pair;
mod verify;
mod workload;

use crate::cli::{DemoArgs, Exit};
use guest::Guest;
use ledger::{BLOCK, Ledger, Window, mix};
use pair::{Daemon, PairError};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use workload::{SharedLedger, Workload, lock};

/// Pause between two checkpoints under load.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_millis(100);
/// How long the promoted guest writes while the commit runs.
const AFTER_FAILOVER: Duration = Duration::from_secs(1);
/// Bound on the commit after the failover.
const COMMIT: Duration = Duration::from_mins(10);

/// Runs the demo.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the demo tells its story"
)]
pub(crate) fn run(args: &DemoArgs, json: bool) -> Exit {
    let outcome = directory(args).and_then(|dir| {
        let outcome = Story::begin(args, &dir, json).and_then(Story::tell);
        clean_up(args, &dir);
        outcome
    });
    match outcome {
        Ok(outcome) => {
            if json {
                println!("{}", outcome.json());
            } else {
                println!("{}", outcome.text());
            }
            if outcome.ok { Exit::Ok } else { Exit::Failed }
        }
        Err(DemoError::System(message)) => {
            eprintln!("afterimage: demo: {message}");
            Exit::System
        }
        Err(DemoError::Failed(message)) => {
            eprintln!("afterimage: demo: {message}");
            Exit::Failed
        }
    }
}

/// Why there is no outcome.
enum DemoError {
    System(String),
    Failed(String),
}

impl From<PairError> for DemoError {
    fn from(error: PairError) -> DemoError {
        match error {
            PairError::System(..) => DemoError::System(error.to_string()),
            PairError::Command(..) | PairError::Gone(_) => DemoError::Failed(error.to_string()),
        }
    }
}

impl From<String> for DemoError {
    fn from(message: String) -> DemoError {
        DemoError::Failed(message)
    }
}

/// What the demo found.
struct Outcome {
    ok: bool,
    rpo: Duration,
    rto: Duration,
    verified_bytes: u64,
    wrong: Vec<String>,
}

impl Outcome {
    fn json(&self) -> serde_json::Value {
        json!({
            "ok": self.ok,
            "rpo_ms": milliseconds(self.rpo),
            "rto_ms": milliseconds(self.rto),
            "verified_bytes": self.verified_bytes,
        })
    }

    fn text(&self) -> String {
        let wrong: Vec<String> = self
            .wrong
            .iter()
            .map(|line| format!("  {line}\n"))
            .collect();
        let verdict = if self.ok {
            "all verified"
        } else {
            "NOT VERIFIED"
        };
        let (rpo, rto) = (milliseconds(self.rpo), milliseconds(self.rto));
        let bytes = self.verified_bytes;
        wrong.concat() + &format!("{verdict}: {bytes} bytes, RPO {rpo} ms, RTO {rto} ms")
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The demo under way.
struct Story {
    dir: PathBuf,
    length: Duration,
    quiet: bool,
    secondary: Daemon,
    primary: Daemon,
    ledger: SharedLedger,
    /// A block the workload leaves alone: the secondary's guest writes there.
    probe: usize,
    wrong: Vec<String>,
    worst_checkpoint: Duration,
    checkpoints: u64,
}

/// A checkpoint: what it may show, and when it was asked for.
struct Checkpoint {
    window: Window,
    asked: Instant,
}

impl Story {
    /// Sets the pair up.
    fn begin(args: &DemoArgs, dir: &Path, quiet: bool) -> Result<Story, DemoError> {
        for name in ["primary.img", "secondary.img"] {
            pair::create_image(&dir.join(name), args.size)?;
        }
        for name in ["hidden.ai", "active.ai"] {
            pair::create_image(&dir.join(name), 0)?;
        }
        let mut secondary = pair::start_secondary(dir)?;
        let mut primary = pair::start_primary(dir)?;
        pair::connect(&mut primary, &mut secondary)?;
        let blocks = usize::try_from(args.size).unwrap_or(usize::MAX) / BLOCK;
        let story = Story {
            dir: dir.to_owned(),
            length: Duration::from_secs(args.seconds),
            quiet,
            secondary,
            primary,
            ledger: Arc::new(Mutex::new(Ledger::new(blocks))),
            probe: blocks.saturating_sub(1),
            wrong: Vec::new(),
            worst_checkpoint: Duration::ZERO,
            checkpoints: 0,
        };
        let mib = args.size >> 20;
        story.say(&format!(
            "A pair of {mib} MiB disks is up in {}.",
            dir.display()
        ));
        Ok(story)
    }

    /// From the first write to the last comparison.
    fn tell(mut self) -> Result<Outcome, DemoError> {
        let load = Workload::start(&self.primary.nbd, &self.ledger, 1);
        let start = Instant::now();
        self.checkpoints_until(start + self.length / 2)?;
        self.quiesced_checkpoint(&load)?;
        let last = self.checkpoints_until(start + self.length)?;
        std::thread::sleep(BETWEEN_CHECKPOINTS / 2);
        let guest = Guest::start(&self.secondary.nbd, &self.ledger, self.probe)?;
        let killed = self.kill_primary(&load)?;
        let Checkpoint { mut window, asked } = last;
        let rto = self.fail_over(killed, guest)?;
        window.expect(self.probe, lock(&self.ledger).issued(self.probe));
        // The server is gone: an error is how the writers end.
        let _ = load.stop();
        self.verify_view(&window)?;
        self.write_on()?;
        self.wait_for_commit()?;
        let verified_bytes = self.verify_image()?;
        Ok(Outcome {
            ok: self.wrong.is_empty(),
            rpo: killed.saturating_duration_since(asked),
            rto,
            verified_bytes,
            wrong: self.wrong,
        })
    }

    /// Takes checkpoints under load until `end`; at least one. Returns the last.
    fn checkpoints_until(&mut self, end: Instant) -> Result<Checkpoint, DemoError> {
        let first = self.checkpoints;
        let last = loop {
            let checkpoint = self.checkpoint()?;
            if Instant::now() + BETWEEN_CHECKPOINTS > end {
                break checkpoint;
            }
            std::thread::sleep(BETWEEN_CHECKPOINTS);
        };
        let (count, worst) = (
            self.checkpoints.saturating_sub(first),
            self.worst_checkpoint,
        );
        let worst = milliseconds(worst);
        self.say(&format!(
            "{count} checkpoints under full load, the slowest took {worst} ms."
        ));
        Ok(last)
    }

    /// Takes one checkpoint and notes what it may show.
    fn checkpoint(&mut self) -> Result<Checkpoint, DemoError> {
        let lowest = lock(&self.ledger).before_checkpoint();
        let asked = Instant::now();
        self.secondary
            .execute("xen-colo-do-checkpoint", &json!({}))?;
        self.worst_checkpoint = self.worst_checkpoint.max(asked.elapsed());
        self.checkpoints = self.checkpoints.saturating_add(1);
        let window = lock(&self.ledger).after_checkpoint(lowest);
        Ok(Checkpoint { window, asked })
    }

    /// Stops the load for one checkpoint, and compares the view while the load goes on: exactly.
    fn quiesced_checkpoint(&mut self, load: &Workload) -> Result<(), DemoError> {
        load.pause()?;
        let Checkpoint { window, .. } = self.checkpoint()?;
        if !window.is_exact() {
            return Err(DemoError::Failed(
                "writes were in flight in a pause".to_owned(),
            ));
        }
        load.resume();
        let found = verify::export(&self.secondary.nbd, &window)?;
        self.say("One checkpoint with the load paused; the load goes on, the view stands still:");
        self.note(
            found,
            "the view is compared with the primary's disk at that instant",
        );
        Ok(())
    }

    fn kill_primary(&mut self, load: &Workload) -> Result<Instant, DemoError> {
        let killed = Instant::now();
        self.primary.kill()?;
        let written = load.written();
        self.say(&format!(
            "kill -9 of the primary, {written} blocks into the load."
        ));
        Ok(killed)
    }

    /// Promotes the secondary; returns the time from the kill to the guest's first write after the
    /// order was given.
    fn fail_over(&mut self, killed: Instant, guest: Guest) -> Result<Duration, DemoError> {
        let order = json!({"enable": false, "primary": false, "failover": true});
        let ordered = Instant::now();
        self.secondary.execute("xen-set-replication", &order)?;
        let recorded = ordered.elapsed();
        let noticed = guest.stop()?;
        let first = noticed.first_after(ordered);
        let first = first.ok_or("the guest wrote nothing after the failover".to_owned())?;
        let rto = first.saturating_duration_since(killed);
        self.say(&format!(
            "The secondary took over: its guest's next write was done {} ms after the kill, its \
             slowest took {} ms; the failover was on stable storage after {} ms.",
            milliseconds(rto),
            milliseconds(noticed.slowest_from(ordered)),
            milliseconds(recorded)
        ));
        Ok(rto)
    }

    /// Compares the promoted view with the last checkpoint, while the commit runs.
    fn verify_view(&mut self, window: &Window) -> Result<(), DemoError> {
        let found = verify::export(&self.secondary.nbd, window)?;
        let stage = self.secondary.stage()?;
        lock(&self.ledger).settle(found.versions());
        self.note(
            found,
            &format!("the view is compared with the last checkpoint (stage {stage})"),
        );
        Ok(())
    }

    /// The promoted guest writes on while the commit runs.
    fn write_on(&mut self) -> Result<(), DemoError> {
        let load = Workload::start(&self.secondary.nbd, &self.ledger, mix(2));
        std::thread::sleep(AFTER_FAILOVER);
        load.pause()?;
        let written = load.written();
        load.stop()?;
        self.say(&format!("The promoted guest wrote {written} more blocks."));
        Ok(())
    }

    fn wait_for_commit(&mut self) -> Result<(), DemoError> {
        let start = Instant::now();
        loop {
            match self.secondary.stage()?.as_str() {
                "done" => break,
                "failover" if start.elapsed() < COMMIT => {}
                stage => {
                    return Err(DemoError::Failed(format!(
                        "the commit ended in stage {stage}"
                    )));
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.say("The commit is done: the image stands alone.");
        Ok(())
    }

    /// Shuts the secondary down and compares its image with the record, byte by byte.
    fn verify_image(&mut self) -> Result<u64, DemoError> {
        self.secondary.quit()?;
        let window = lock(&self.ledger).now();
        let found = verify::image(&self.dir.join("secondary.img"), &window)?;
        let bytes = found.bytes();
        self.note(found, "the image file is compared with the record");
        Ok(bytes)
    }

    /// Tells how a comparison went, and keeps what was wrong for the verdict.
    fn note(&mut self, found: verify::Found, comparison: &str) {
        let bytes = found.bytes();
        if found.wrong_count == 0 {
            self.say(&format!(
                "  {comparison}: {bytes} bytes, all as they must be."
            ));
            return;
        }
        let line = format!("{comparison}: {} blocks are wrong", found.wrong_count);
        self.say(&format!("  {line}"));
        self.wrong.push(line);
        self.wrong.extend(found.wrong);
    }

    #[expect(clippy::print_stdout, reason = "the demo tells its story")]
    fn say(&self, line: &str) {
        if !self.quiet {
            println!("{line}");
        }
    }
}

/// The directory of the demo: the user's, or a fresh one.
fn directory(args: &DemoArgs) -> Result<PathBuf, DemoError> {
    let dir = args.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("afterimage-demo-{}", std::process::id()))
    });
    let made = std::fs::create_dir_all(&dir).and_then(|()| dir.canonicalize());
    made.map_err(|error| DemoError::System(format!("cannot create {}: {error}", dir.display())))
}

/// Removes a directory that was made for this run.
fn clean_up(args: &DemoArgs, dir: &Path) {
    if args.dir.is_none() {
        // Left-overs in the temporary directory are no reason to fail.
        let _ = std::fs::remove_dir_all(dir);
    }
}
