//! Plays a script on a pair of the real engine from beginning to end.

use crate::layout::Layout;
use crate::model::Tag;
use crate::pair::{Build, Pair};
use crate::run::{Broken, Counters, Run, Subject};
use crate::script::{Action, Command, Script};
use crate::world::{Options, World};

/// What the disks hold at the beginning.
const FIRST: Tag = 67; // 'C'

/// The circumstances of a script.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Decides whatever is left to chance.
    pub seed: u64,
    /// How the world behaves.
    pub options: Options,
    /// The disks' blocks.
    pub layout: Layout,
    /// How the pair is built.
    pub build: Build,
}

/// How it went.
#[derive(Debug)]
pub struct Played {
    /// One line a step.
    pub transcript: String,
    /// How often rare things happened.
    pub counters: Counters,
    /// The promise that was not kept, if any.
    pub broken: Option<Broken>,
}

/// Plays `script`. Replication is started first, unless the script does that itself.
pub fn play(stage: &Stage, script: &Script) -> Played {
    let world = World::new(stage.seed, stage.options);
    let layout = &stage.layout;
    let result = world.run(async {
        let pair = Pair::new(&world, layout, stage.build, FIRST).await?;
        if !starts(script) {
            pair.command(Command::Start).await?;
        }
        let run = Run::new(&pair, world.executor(), layout, FIRST);
        let broken = run.script(script).await.err();
        Ok(Played {
            transcript: run.transcript(),
            counters: run.counters(),
            broken,
        })
    });
    match result {
        Ok(Ok(played)) => played,
        Ok(Err(error)) => failed("setting up", error),
        Err(stuck) => failed("the run", format!("{stuck:?}")),
    }
}

fn starts(script: &Script) -> bool {
    let mut actions = script.0.iter().flat_map(|step| &step.0);
    actions.any(|timed| timed.action == Action::Command(Command::Start))
}

fn failed(during: &str, what: String) -> Played {
    let broken = Broken {
        during: during.to_owned(),
        what,
    };
    Played {
        transcript: String::new(),
        counters: Counters::new(),
        broken: Some(broken),
    }
}
