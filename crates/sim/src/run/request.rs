//! Requests on their way, and whether they were allowed to end as they did.

use super::{Answer, Run, Stage};
use crate::model::{Begun, Outcome, Time, Violation, Writer};
use crate::script::Request;
use std::ops::Range;
use std::time::Duration;

impl Run<'_> {
    pub(super) async fn request(
        &self,
        from: Writer,
        request: &Request,
    ) -> Result<Option<String>, String> {
        self.note_neighbours(from, request);
        self.in_flight.borrow_mut().push((from, request.clone()));
        let before = self.subject.stage();
        let called = self.model.borrow_mut().tick();
        let begun = self.begin(from, request);
        let since = self.executor.now();
        let answer = self.subject.request(from, request.clone()).await;
        self.done(from, request);
        self.judge_wait(from, self.executor.now().saturating_sub(since))?;
        let outcome = match &answer {
            Answer::Done | Answer::Data(_) => Outcome::Acknowledged,
            Answer::Failed(_) => Outcome::Failed,
            Answer::Lost(_) => Outcome::Unknown,
        };
        if let Some(begun) = &begun {
            // A discard may leave the old data where it is.
            let vague = matches!(request, Request::Discard(_)) && outcome == Outcome::Acknowledged;
            let outcome = if vague { Outcome::Failed } else { outcome };
            self.model.borrow_mut().end_write(begun, outcome);
        }
        if *request == Request::Flush && outcome == Outcome::Acknowledged {
            let mut model = self.model.borrow_mut();
            model.flushed(from, called);
            // In and after a failover the guest's flush covers the disk below as well.
            if self.so_far.promoted.get() {
                model.flushed(Writer::Peer, called);
            }
        }
        match answer {
            Answer::Done => Ok(None),
            Answer::Data(data) => self.judge_read(from, called, request, &data).map(|()| None),
            Answer::Failed(error) | Answer::Lost(error) => {
                if outcome == Outcome::Unknown {
                    self.count("request lost");
                }
                self.judge_failure(from, before, &error)?;
                Ok(Some(format!("{request}: {error}")))
            }
        }
    }

    fn begin(&self, from: Writer, request: &Request) -> Option<Begun> {
        let (blocks, tag) = match request {
            Request::Write(blocks, tag) => (blocks, *tag),
            Request::Zero(blocks) | Request::Discard(blocks) => (blocks, 0),
            Request::Flush | Request::Read(_) => return None,
        };
        Some(
            self.model
                .borrow_mut()
                .begin_write(from, blocks.clone(), tag),
        )
    }

    fn done(&self, from: Writer, request: &Request) {
        let mut list = self.in_flight.borrow_mut();
        if let Some(index) = list.iter().position(|(f, r)| *f == from && r == request) {
            list.swap_remove(index);
        }
    }

    fn judge_read(
        &self,
        from: Writer,
        called: Time,
        request: &Request,
        data: &[u8],
    ) -> Result<(), String> {
        let Request::Read(blocks) = request else {
            return Err("data for a request that is no read".to_owned());
        };
        self.judge_data(from, called, blocks, data)
    }

    pub(super) fn judge_data(
        &self,
        from: Writer,
        called: Time,
        blocks: &Range<usize>,
        data: &[u8],
    ) -> Result<(), String> {
        let tags = self.layout.tags(blocks, data);
        let mut model = self.model.borrow_mut();
        let verdict = match from {
            Writer::Guest => model.judge_view(called, blocks.start, &tags),
            // A failover makes the disk the view; a crash loses what was not flushed.
            Writer::Peer if self.is_disk_taken() => Ok(()),
            Writer::Peer => model.judge_disk(called, blocks.start, &tags),
        };
        verdict.map_err(|Violation(what)| what)
    }

    /// Whether the peer reads what somebody else may have changed.
    fn is_disk_taken(&self) -> bool {
        let touched = self.so_far.promoting.get() || self.so_far.crashes.get() > 0;
        touched && self.subject.peer_limit().is_none()
    }

    /// Whether the peer was allowed to wait for so long.
    fn judge_wait(&self, from: Writer, waited: Duration) -> Result<(), String> {
        match self.subject.peer_limit() {
            Some(limit)
                if from == Writer::Peer && waited > limit && !self.so_far.peer_trouble.get() =>
            {
                Err(format!("the primary's guest waited {waited:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a request that was made in stage `before` was allowed to fail.
    pub(super) fn judge_failure(
        &self,
        from: Writer,
        before: Stage,
        error: &str,
    ) -> Result<(), String> {
        let served = match (from, before) {
            (Writer::Peer, Stage::Running) => !self.so_far.promoting.get(),
            (Writer::Peer, Stage::Done) => self.so_far.stopped.get(),
            (Writer::Guest, Stage::Running | Stage::Failover | Stage::Done) => true,
            (_, _) => false,
        };
        let kept = from == Writer::Peer && self.subject.peer_limit().is_some();
        if kept && !self.so_far.peer_trouble.get() {
            return Err(format!("the primary's guest was told of an error: {error}"));
        }
        if served && !kept && !self.so_far.trouble.get() {
            return Err(format!("failed though nothing had gone wrong: {error}"));
        }
        Ok(())
    }
}
