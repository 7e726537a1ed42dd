//! Makes a failing script shorter for as long as it still fails.

use crate::script::{Script, Step};

/// Runs that are spent on one script at most.
const RUNS: usize = 2000;

/// The shortest script found for which `fails` still holds, by leaving out steps, runs of actions,
/// single actions and delays.
pub fn minimise(script: &Script, mut fails: impl FnMut(&Script) -> bool) -> Script {
    let mut best = script.clone();
    let mut runs = 0;
    let mut try_one = |best: &mut Script, shorter: Script| {
        runs += 1;
        let fails = runs <= RUNS && shorter != *best && fails(&shorter);
        if fails {
            *best = shorter;
        }
        fails
    };
    loop {
        let before = best.clone();
        let mut size = actions(&best).next_power_of_two();
        while size > 0 {
            let mut at = 0;
            while at < actions(&best) {
                let shorter = without(&best, at, size);
                if !try_one(&mut best, shorter) {
                    at = at.saturating_add(size);
                }
            }
            size /= 2;
        }
        for index in 0..actions(&best) {
            let sooner = at_once(&best, index);
            try_one(&mut best, sooner);
        }
        if best == before {
            return best;
        }
    }
}

fn actions(script: &Script) -> usize {
    script.0.iter().map(|step| step.0.len()).sum()
}

/// The script without the actions from `start` on, `count` of them, and without empty steps.
fn without(script: &Script, start: usize, count: usize) -> Script {
    let gone = start..start.saturating_add(count);
    let mut index = 0;
    let mut kept: Vec<Step> = Vec::new();
    for step in &script.0 {
        let mut left = step.clone();
        left.0.retain(|_| {
            index += 1;
            !gone.contains(&(index - 1))
        });
        if !left.0.is_empty() {
            kept.push(left);
        }
    }
    Script(kept)
}

/// The script with one action begun at once.
fn at_once(script: &Script, index: usize) -> Script {
    let mut script = script.clone();
    let timed = script.0.iter_mut().flat_map(|step| &mut step.0).nth(index);
    if let Some(timed) = timed {
        timed.after = 0;
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let text = "peer 1 P & @50 guest 0 G | peer flush | checkpoint & @70 peer 2 Q | failover";
        let script: Script = text.parse().unwrap();
        let fails = |script: &Script| {
            let text = script.to_string();
            text.contains("guest 0 G") && text.contains("peer 2 Q")
        };
        assert_eq!(minimise(&script, fails).to_string(), "guest 0 G | peer 2 Q");
    }
}
