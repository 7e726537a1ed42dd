//! Scenario scripts on the real engine: a script goes in, a transcript comes out.
//!
//! Goal: say what the guest of the secondary sees, and what its disk holds, at every point of a
//! pair's life.
//! Method: each line is one step: its text, the guest's view, the secondary disk, and what failed; one
//! letter a block. The model judges every answer besides. Update the expectations with
//! `UPDATE_EXPECT=1 cargo test`.

use expect_test::{Expect, expect};
use sim::layout::Layout;
use sim::pair::{Build, Peer, Top};
use sim::play::{Stage, play};
use sim::world::Options;

#[test]
fn peer_writes_are_invisible_until_the_checkpoint() {
    check(
        "peer 1 P | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  CPCC  peer 1 P
            CPCC  CPCC  checkpoint
        "]],
    );
}

#[test]
fn failover_keeps_the_guests_own_writes_and_drops_the_peers() {
    check(
        "guest 0 G | peer 1 P | failover | settle",
        &expect![[r"
            CCCC  CCCC  begin
            GCCC  CCCC  guest 0 G
            GCCC  CPCC  peer 1 P
            GCCC  GCCC  failover
            GCCC  GCCC  settle
        "]],
    );
}

#[test]
fn a_checkpoint_drops_what_the_guest_wrote_since_the_previous_one() {
    check(
        "guest 2 G | peer 2 P | peer 2 Q | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCGC  CCCC  guest 2 G
            CCGC  CCPC  peer 2 P
            CCGC  CCQC  peer 2 Q
            CCQC  CCQC  checkpoint
        "]],
    );
}

#[test]
fn before_the_start_the_view_fails_and_the_disk_is_open() {
    check(
        "guest 0 G | guest read 1 | peer 0 P | start | guest 1 G",
        &expect![[r"
            ----  CCCC  begin
            ----  CCCC  guest 0 G
                0 G: write of 65536 bytes at offset 0 on node 'view': I/O error: the NBD server answered EIO: write of 65536 bytes at offset 0 on node 'filter': I/O error: replication has not been started
            ----  CCCC  guest read 1
                read 1: read of 65536 bytes at offset 65536 on node 'view': I/O error: the NBD server answered EIO: read of 65536 bytes at offset 65536 on node 'filter': I/O error: replication has not been started
            ----  PCCC  peer 0 P
            PCCC  PCCC  start
            PGCC  PCCC  guest 1 G
        "]],
    );
}

#[test]
fn a_failover_rolls_the_peer_back_to_the_checkpoint() {
    check(
        "peer 2-3 P | guest 0-1 G | checkpoint | peer 0 Q | guest 1 H | peer 3 R | failover | settle",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  CCPP  peer 2-3 P
            GGCC  CCPP  guest 0-1 G
            CCPP  CCPP  checkpoint
            CCPP  QCPP  peer 0 Q
            CHPP  QCPP  guest 1 H
            CHPP  QCPR  peer 3 R
            CHPP  CHPP  failover
            CHPP  CHPP  settle
        "]],
    );
}

#[test]
fn after_a_failover_every_command_is_taken_and_none_does_anything() {
    check(
        "start | peer 2-3 P | guest 0-1 G | failover | settle | start | checkpoint | stop | failover | guest 3 H",
        &expect![[r"
            ----  CCCC  begin
            CCCC  CCCC  start
            CCCC  CCPP  peer 2-3 P
            GGCC  CCPP  guest 0-1 G
            GGCC  GGCC  failover
            GGCC  GGCC  settle
            GGCC  GGCC  start
            GGCC  GGCC  checkpoint
            GGCC  GGCC  stop
            GGCC  GGCC  failover
            GGCH  GGCH  guest 3 H
        "]],
    );
}

#[test]
fn a_second_start_is_refused() {
    check(
        "start | peer 0 P | start | checkpoint",
        &expect![[r"
            ----  CCCC  begin
            CCCC  CCCC  start
            CCCC  PCCC  peer 0 P
            CCCC  PCCC  start
                replication node 'filter': replication runs already, or its failover failed
            PCCC  PCCC  checkpoint
        "]],
    );
}

#[test]
fn commands_before_the_start_are_refused() {
    check(
        "checkpoint | stop | failover | start",
        &expect![[r"
            ----  CCCC  begin
            ----  CCCC  checkpoint
                replication node 'filter': copy-before-write is not running, so there is nothing to checkpoint
            ----  CCCC  stop
                replication node 'filter': replication is not running
            ----  CCCC  failover
                replication node 'filter': replication is not running
            CCCC  CCCC  start
        "]],
    );
}

#[test]
fn what_the_guest_wrote_wins_over_what_the_peer_wrote_there() {
    check(
        "guest 1 G | peer 1 P | failover | settle",
        &expect![[r"
            CCCC  CCCC  begin
            CGCC  CCCC  guest 1 G
            CGCC  CPCC  peer 1 P
            CGCC  CGCC  failover
            CGCC  CGCC  settle
        "]],
    );
}

#[test]
fn zeroes_and_discards_of_the_peer_are_held_back_like_writes() {
    check(
        "peer zero 0 | peer discard 1 | guest read 0-1 | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  .CCC  peer zero 0
            CCCC  ..CC  peer discard 1
            CCCC  ..CC  guest read 0-1
            ..CC  ..CC  checkpoint
        "]],
    );
}

#[test]
fn zeroes_of_the_guest_hide_what_lies_below() {
    check(
        "guest zero 0 | peer 0 P | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            .CCC  CCCC  guest zero 0
            .CCC  PCCC  peer 0 P
            PCCC  PCCC  checkpoint
        "]],
    );
}

#[test]
fn discards_of_the_guest_never_show_old_data() {
    check(
        "peer 0 P | checkpoint | guest 0 G | guest discard 0",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PCCC  peer 0 P
            PCCC  PCCC  checkpoint
            GCCC  PCCC  guest 0 G
            .CCC  PCCC  guest discard 0
        "]],
    );
}

#[test]
fn a_part_of_a_cluster_is_written_and_the_rest_stays() {
    check_fine(
        "peer 1 P | peer 6-7 Q | guest 2 G | checkpoint | peer 2 R | guest 1-4 H | failover | settle",
        &expect![[r"
            CCCC CCCC  CCCC CCCC  begin
            CCCC CCCC  CPCC CCCC  peer 1 P
            CCCC CCCC  CPCC CCQQ  peer 6-7 Q
            CCGC CCCC  CPCC CCQQ  guest 2 G
            CPCC CCQQ  CPCC CCQQ  checkpoint
            CPCC CCQQ  CPRC CCQQ  peer 2 R
            CHHH HCQQ  CPRC CCQQ  guest 1-4 H
            CHHH HCQQ  CHHH HCQQ  failover
            CHHH HCQQ  CHHH HCQQ  settle
        "]],
    );
}

#[test]
fn the_guests_own_unaligned_writes_keep_their_neighbours() {
    check_fine(
        "guest 2 G | guest 5-6 H | peer 0-7 P | guest 4 I | checkpoint",
        &expect![[r"
            CCCC CCCC  CCCC CCCC  begin
            CCGC CCCC  CCCC CCCC  guest 2 G
            CCGC CHHC  CCCC CCCC  guest 5-6 H
            CCGC CHHC  PPPP PPPP  peer 0-7 P
            CCGC IHHC  PPPP PPPP  guest 4 I
            PPPP PPPP  PPPP PPPP  checkpoint
        "]],
    );
}

#[test]
fn a_stop_leaves_the_peers_data_and_the_guest_goes_on() {
    check(
        "guest 0 G | peer 1 P | stop | peer 2 Q | guest 3 H | checkpoint | stop | failover",
        &expect![[r"
            CCCC  CCCC  begin
            GCCC  CCCC  guest 0 G
            GCCC  CPCC  peer 1 P
            CPCC  CPCC  stop
            CPQC  CPQC  peer 2 Q
            CPQH  CPQC  guest 3 H
            CPQH  CPQC  checkpoint
            CPQH  CPQC  stop
            CPQH  CPQC  failover
        "]],
    );
}

#[test]
fn after_a_failover_the_peer_is_kept_out() {
    check(
        "peer 0 P | failover | peer 1 Q | settle | peer 2 R",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PCCC  peer 0 P
            CCCC  CCCC  failover
            CCCC  CCCC  peer 1 Q
                1 Q: write of 65536 bytes at offset 65536 on node 'disk': I/O error: NBD server secondary:10809: the server closed the connection
            CCCC  CCCC  settle
            CCCC  CCCC  peer 2 R
                2 R: write of 65536 bytes at offset 131072 on node 'disk': I/O error: NBD server secondary:10809: the server closed the connection
        "]],
    );
}

#[test]
fn the_guest_reads_and_writes_while_the_commit_runs() {
    check(
        "peer 0-3 P | guest 1 G | failover & guest 2 H | guest 3 I & guest read 0-3 & settle",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PPPP  peer 0-3 P
            CGCC  PPPP  guest 1 G
            CGHC  CGHC  failover & guest 2 H
            CGHI  CGHI  guest 3 I & guest read 0-3 & settle
        "]],
    );
}

#[test]
fn a_checkpoint_beside_writes_lies_between_them() {
    check(
        "peer 0 P & peer 1 Q & checkpoint & peer 2 R | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PQRC  peer 0 P & peer 1 Q & checkpoint & peer 2 R
            PQRC  PQRC  checkpoint
        "]],
    );
}

#[test]
fn a_commit_that_fails_splits_writes_and_is_retried() {
    check(
        "peer 0-1 P | guest 2 G | fault disk write 5 skip 0 times 1 | failover | settle | guest 2 H | guest 3 I | failover | settle",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PPCC  peer 0-1 P
            CCGC  PPCC  guest 2 G
            CCGC  PPCC  fault disk write 5 skip 0 times 1
            CCGC  PPCC  failover
            CCGC  PPCC  settle
            CCHC  PPCC  guest 2 H
            CCHI  PPCI  guest 3 I
            CCHI  CCHI  failover
            CCHI  CCHI  settle
        "]],
    );
}

#[test]
fn a_failover_that_cannot_be_recorded_is_refused_and_the_guest_goes_on() {
    check(
        "peer 0 P | guest 1 G | fault hidden sync 5 skip 0 times 1 | failover | settle | guest 2 H | failover | settle",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PCCC  peer 0 P
            CGCC  PCCC  guest 1 G
            CGCC  PCCC  fault hidden sync 5 skip 0 times 1
            CGCC  PCCC  failover
                node 'filter': flush of 327680 bytes at offset 0 on node 'hidden-file': node is poisoned by an earlier failed flush: input/output error; close the node and add it again
            CGCC  PCCC  settle
            CGHC  PCCC  guest 2 H
            CGHC  PCCC  failover
                node 'filter': node is poisoned by an earlier failed flush
            CGHC  PCCC  settle
        "]],
    );
}

#[test]
fn a_failover_that_is_recorded_in_half_fails_and_the_guest_loses_nothing() {
    check(
        "peer 0 P | guest 1 G | fault active sync 5 skip 0 times 1 | failover | settle | guest 2 H | guest 1 I | failover | settle",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PCCC  peer 0 P
            CGCC  PCCC  guest 1 G
            CGCC  PCCC  fault active sync 5 skip 0 times 1
            CGCC  PCCC  failover
                node 'filter': flush of 327680 bytes at offset 0 on node 'active-file': node is poisoned by an earlier failed flush: input/output error; close the node and add it again
            CGCC  PCCC  settle
            CGCC  PCCC  guest 2 H
                2 H: write of 65536 bytes at offset 131072 on node 'view': I/O error: the NBD server answered EIO: write of 65536 bytes at offset 131072 on node 'active': node is poisoned by an earlier failed flush
            CGCC  PCCC  guest 1 I
                1 I: write of 65536 bytes at offset 65536 on node 'view': I/O error: the NBD server answered EIO: write of 65536 bytes at offset 65536 on node 'active': node is poisoned by an earlier failed flush
            CGCC  PCCC  failover
                node 'filter': node is poisoned by an earlier failed flush
            CGCC  PCCC  settle
        "]],
    );
}

#[test]
fn a_full_hidden_disk_fails_the_peers_write_and_nothing_else() {
    check(
        "space 0 | peer 0 P | heal | peer 0 Q | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  CCCC  space 0
            CCCC  CCCC  peer 0 P
                0 P: write of 65536 bytes at offset 0 on node 'disk': no space left on device: the NBD server answered ENOSPC: write of 65536 bytes at offset 65536 on node 'hidden-file': no space left on device: no space left on device
            CCCC  CCCC  heal
            CCCC  QCCC  peer 0 Q
            QCCC  QCCC  checkpoint
        "]],
    );
}

#[test]
fn old_data_that_cannot_be_read_fails_the_peers_write() {
    check(
        "fault disk read 5 skip 2 times 1 | peer 0 P | peer 0 Q | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  CCCC  fault disk read 5 skip 2 times 1
            CCCC  CCCC  peer 0 P
                0 P: write of 65536 bytes at offset 0 on node 'disk': I/O error: the NBD server answered EIO: read of 65536 bytes at offset 0 on node 'disk': I/O error: input/output error
            CCCC  QCCC  peer 0 Q
            QCCC  QCCC  checkpoint
        "]],
    );
}

#[test]
fn old_data_that_cannot_be_saved_fails_the_peers_write() {
    check(
        "fault hidden write 5 skip 0 times 1 | peer 0-1 P | peer 0 Q | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  CCCC  fault hidden write 5 skip 0 times 1
            CCCC  CCCC  peer 0-1 P
                0-1 P: write of 131072 bytes at offset 0 on node 'disk': I/O error: the NBD server answered EIO: write of 131072 bytes at offset 65536 on node 'hidden-file': I/O error: input/output error
            CCCC  QCCC  peer 0 Q
            QCCC  QCCC  checkpoint
        "]],
    );
}

#[test]
fn the_guest_is_told_of_its_own_disks_errors() {
    check(
        "fault active write 5 skip 0 times 1 | guest 0 G | guest 0 H | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  CCCC  fault active write 5 skip 0 times 1
            CCCC  CCCC  guest 0 G
                0 G: write of 65536 bytes at offset 0 on node 'view': I/O error: the NBD server answered EIO: write of 65536 bytes at offset 65536 on node 'active-file': I/O error: input/output error
            HCCC  CCCC  guest 0 H
            CCCC  CCCC  checkpoint
        "]],
    );
}

#[test]
fn a_checkpoint_that_fails_leaves_the_view_as_it_was() {
    check(
        "guest 0 G | peer 1 P | fault active sync 5 skip 0 times 1 | guest flush | checkpoint | failover",
        &expect![[r"
            CCCC  CCCC  begin
            GCCC  CCCC  guest 0 G
            GCCC  CPCC  peer 1 P
            GCCC  CPCC  fault active sync 5 skip 0 times 1
            GCCC  CPCC  guest flush
                flush: flush of 262144 bytes at offset 0 on node 'view': I/O error: the NBD server answered EIO: flush of 327680 bytes at offset 0 on node 'active-file': node is poisoned by an earlier failed flush: input/output error; close the node and add it again
            GCCC  CPCC  checkpoint
                node 'filter': make-empty of 262144 bytes at offset 0 on node 'active': node is poisoned by an earlier failed flush
            GCCC  CPCC  failover
                node 'filter': node is poisoned by an earlier failed flush
        "]],
    );
}

#[test]
fn a_writer_that_was_lost_stops_checkpoints_but_not_the_failover() {
    check(
        "peer 0 P & lose 100 | checkpoint | guest 1 G | failover | settle",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  CCCC  peer 0 P & lose 100
                0 P: write of 65536 bytes at offset 0 on node 'disk': I/O error: the connection to the NBD server was lost: the server closed the connection
            CCCC  CCCC  checkpoint
                replication node 'filter': the peer's writes may be incomplete: stop replication or fail over
            CGCC  CCCC  guest 1 G
            CGCC  CGCC  failover
            CGCC  CGCC  settle
        "]],
    );
}

#[test]
fn a_crash_while_replicating_leaves_contents_unknown() {
    check(
        "guest 0 G | peer 1 P | power-cut | guest read 0-3",
        &expect![[r"
            CCCC  CCCC  begin
            GCCC  CCCC  guest 0 G
            GCCC  CPCC  peer 1 P
            ----  CCCC  power-cut
                Lost
            ----  CCCC  guest read 0-3
                read 0-3: read of 262144 bytes at offset 0 on node 'view': I/O error: the NBD server answered EIO: read of 262144 bytes at offset 0 on node 'filter': I/O error: replication has not been started
        "]],
    );
}

#[test]
fn a_crash_after_the_failover_resumes_the_commit() {
    check(
        "peer 0-3 P | guest 0 G | fault disk write slow:50 skip 0 times 9 | failover | power-cut | settle | guest 1 H",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PPPP  peer 0-3 P
            GCCC  PPPP  guest 0 G
            GCCC  PPPP  fault disk write slow:50 skip 0 times 9
            GCCC  PPPP  failover
            GCCC  GCCC  power-cut
                Done
            GCCC  GCCC  settle
            GHCC  GHCC  guest 1 H
        "]],
    );
}

#[test]
fn a_second_crash_resumes_it_again() {
    check(
        "peer 0-3 P | guest 0 G | fault disk write slow:50 skip 0 times 9 | failover | kill & fault disk write slow:50 skip 0 times 9 | guest 2 H | guest flush | power-cut | settle",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PPPP  peer 0-3 P
            GCCC  PPPP  guest 0 G
            GCCC  PPPP  fault disk write slow:50 skip 0 times 9
            GCCC  PPPP  failover
            GCCC  GCCC  kill & fault disk write slow:50 skip 0 times 9
                Done
            GCHC  GCHC  guest 2 H
            GCHC  GCHC  guest flush
                flush: flush of 262144 bytes at offset 0 on node 'view': I/O error: the connection was lost after writes that had not been flushed: the server may have forgotten them
            ----  GCHC  power-cut
                None
            ----  GCHC  settle
        "]],
    );
}

#[test]
fn a_primary_forwards_its_guests_writes_zeroes_and_discards() {
    check_primary(
        "peer 0-3 P | peer zero 1 | peer discard 2 | peer flush | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PPPP  peer 0-3 P
            CCCC  P.PP  peer zero 1
            CCCC  P..P  peer discard 2
            CCCC  P..P  peer flush
            P..P  P..P  checkpoint
        "]],
    );
}

#[test]
fn a_write_that_fails_on_the_primarys_own_disk_fails() {
    check_primary(
        "fault local write 5 skip 0 times 1 | peer 0 P | peer 1 Q | checkpoint",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  CCCC  fault local write 5 skip 0 times 1
            CCCC  PCCC  peer 0 P
                0 P: write of 65536 bytes at offset 0 on node 'root': I/O error: the NBD server answered EIO: write of 65536 bytes at offset 0 on node 'local': I/O error: input/output error
            CCCC  PQCC  peer 1 Q
            PQCC  PQCC  checkpoint
        "]],
    );
}

#[test]
fn a_write_that_cannot_be_forwarded_succeeds_and_is_remembered() {
    check_primary(
        "lose 0 | peer 0 P | peer 1 Q | checkpoint | guest 2 G | failover | settle",
        &expect![[r#"
            CCCC  CCCC  begin
            CCCC  CCCC  lose 0
            CCCC  CCCC  peer 0 P
            CCCC  CCCC  peer 1 Q
            CCCC  CCCC  checkpoint
                the primary has lost writes: {"desc":"I/O error occurred: write of 65536 bytes at offset 0 on node 'link': I/O error: NBD server secondary:10809: the server closed the connection","error":true}
            CCGC  CCCC  guest 2 G
            CCGC  CCGC  failover
            CCGC  CCGC  settle
        "#]],
    );
}

#[test]
fn a_secondary_that_hangs_keeps_nobody_waiting() {
    check_primary(
        "peer 0 P & hang 3000 | peer 1 Q | checkpoint | failover | settle",
        &expect![[r#"
            CCCC  CCCC  begin
            CCCC  PCCC  peer 0 P & hang 3000
            CCCC  PCCC  peer 1 Q
            CCCC  PCCC  checkpoint
                the primary has lost writes: {"desc":"I/O error occurred: write of 65536 bytes at offset 0 on node 'forward': timed out: the peer did not answer within 1s","error":true}
            CCCC  CCCC  failover
            CCCC  CCCC  settle
        "#]],
    );
}

#[test]
fn the_primary_dies_and_the_secondary_carries_on() {
    check_primary(
        "peer 0-3 P | checkpoint | peer 0 Q | guest 1 G | peer-dies | checkpoint | failover & guest 2 H | settle | guest 3 I",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PPPP  peer 0-3 P
            PPPP  PPPP  checkpoint
            PPPP  QPPP  peer 0 Q
            PGPP  QPPP  guest 1 G
            PGPP  QPPP  peer-dies
            PGPP  QPPP  checkpoint
                the process has gone
            PGHP  PGHP  failover & guest 2 H
            PGHP  PGHP  settle
            PGHI  PGHI  guest 3 I
        "]],
    );
}

#[test]
fn a_stop_ends_forwarding_and_leaves_both_disks_equal() {
    check_primary(
        "peer 0 P | guest 1 G | stop | peer 2 Q | guest 3 H",
        &expect![[r"
            CCCC  CCCC  begin
            CCCC  PCCC  peer 0 P
            CGCC  PCCC  guest 1 G
            PCCC  PCCC  stop
            PCCC  PCCC  peer 2 Q
            PCCH  PCCC  guest 3 H
        "]],
    );
}

#[test]
fn a_power_cut_after_the_commit_finds_all_of_it_on_the_disk() {
    let script = "guest 0-1 G | guest flush | peer 2 P | failover | settle | power-cut";
    for seed in 0..50 {
        let stage = Stage {
            seed,
            options: Options::unruly(),
            layout: Layout::equal(4, 512),
            build: Build {
                top: Top::Plain,
                peer: Peer::Client,
            },
        };
        let played = play(&stage, &script.parse().expect("a script"));
        assert_eq!(played.broken, None, "{}", played.transcript);
    }
}

/// Four blocks; the peer is a client of the secondary's export.
#[track_caller]
fn check(script: &str, transcript: &Expect) {
    play_on(Layout::equal(4, 65536), Peer::Client, script, transcript);
}

/// Four blocks; the peer is the guest of a primary.
#[track_caller]
fn check_primary(script: &str, transcript: &Expect) {
    play_on(Layout::equal(4, 65536), Peer::Primary, script, transcript);
}

/// Twice four blocks, with ends in the middle of sectors.
#[track_caller]
fn check_fine(script: &str, transcript: &Expect) {
    let layout = Layout::repeated(2, &[512, 3684, 300, 61040]);
    play_on(layout, Peer::Client, script, transcript);
}

#[track_caller]
fn play_on(layout: Layout, peer: Peer, script: &str, transcript: &Expect) {
    let stage = Stage {
        seed: 1,
        options: Options::orderly(),
        layout,
        build: Build {
            top: Top::Quorum,
            peer,
        },
    };
    let played = play(&stage, &script.parse().expect("a script"));
    assert_eq!(played.broken, None, "{}", played.transcript);
    transcript.assert_eq(&played.transcript);
}
