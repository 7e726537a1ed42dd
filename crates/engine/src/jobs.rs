//! Jobs: work that goes on in the background, for `query-block-jobs` and `query-jobs`.
//!
//! ```text
//! created ─▶ running ─▶ concluded ─▶ null        JOB_STATUS_CHANGE at each step
//!               └─ aborting ─┘                   then BLOCK_JOB_COMPLETED or _CANCELLED
//! ```
//!
//! So far all jobs are internal to replication nodes: copy-before-write (`backup`) and the commit
//! of a failover. They are visible and end with an event; they are driven by the replication
//! commands, not by the job commands.

use crate::events::Events;
use crate::exports::direction;
use block::ErrorKind;
use qmp::event::BlockErrorAction;
use qmp::event::{BlockJobCompleted, BlockJobError, BlockJobProgress, JobStatusChange};
use qmp::types::{BlockIoStatus, BlockJobInfo, BlockJobLifecycle, JobInfo, JobStatus, JobType};
use qmp::{Error, ErrorClass, Event};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Work in the background.
pub(crate) struct Job {
    id: String,
    kind: JobType,
    owner: String,
    status: Cell<JobStatus>,
    /// Bytes done and bytes in all.
    progress: Box<dyn Fn() -> (u64, u64)>,
}

/// How a job ended.
pub(crate) enum Outcome {
    /// Its work is done.
    Completed,
    /// Nobody needs it any more.
    Cancelled,
    /// It could not go on.
    Failed(block::Error),
}

impl Job {
    /// A job that belongs to the node `owner`.
    pub(crate) fn internal(
        kind: JobType,
        owner: &str,
        progress: impl Fn() -> (u64, u64) + 'static,
    ) -> Job {
        Job {
            id: format!("#{}-{owner}", kind.as_str()),
            kind,
            owner: owner.to_owned(),
            status: Cell::new(JobStatus::Created),
            progress: Box::new(progress),
        }
    }

    /// Its type, bytes done, bytes in all.
    pub(crate) fn progress(&self) -> (JobType, u64, u64) {
        let (done, total) = (self.progress)();
        (self.kind, done, total)
    }

    /// The node it belongs to.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    fn event_data(&self) -> BlockJobProgress {
        let (kind, offset, len) = self.progress();
        BlockJobProgress {
            kind,
            device: self.id.clone(),
            len,
            offset,
            speed: 0,
        }
    }

    fn block_info(&self) -> BlockJobInfo {
        let (kind, offset, len) = self.progress();
        BlockJobInfo {
            lifecycle: BlockJobLifecycle {
                status: self.status.get(),
                auto_finalize: true,
                auto_dismiss: true,
            },
            kind,
            device: self.id.clone(),
            len,
            offset,
            busy: true,
            paused: false,
            speed: 0,
            io_status: BlockIoStatus::Ok,
            ready: false,
            error: None,
        }
    }

    fn info(&self) -> JobInfo {
        let (kind, done, total) = self.progress();
        JobInfo {
            id: self.id.clone(),
            kind,
            status: self.status.get(),
            current_progress: done,
            total_progress: total,
            error: None,
        }
    }
}

/// All jobs of a data thread. Clones share them.
#[derive(Clone)]
pub(crate) struct Jobs {
    list: Rc<RefCell<Vec<Rc<Job>>>>,
    events: Events,
}

impl Jobs {
    /// No jobs.
    pub(crate) fn new(events: Events) -> Jobs {
        Jobs {
            list: Rc::default(),
            events,
        }
    }

    /// Shows a job that has begun.
    pub(crate) fn begin(&self, job: Job) -> Rc<Job> {
        let job = Rc::new(job);
        self.list.borrow_mut().push(Rc::clone(&job));
        self.enter(&job, JobStatus::Created);
        self.enter(&job, JobStatus::Running);
        job
    }

    /// Takes a job that has ended away.
    pub(crate) fn end(&self, job: &Rc<Job>, outcome: Outcome) {
        match &outcome {
            Outcome::Completed => {
                self.enter(job, JobStatus::Waiting);
                self.enter(job, JobStatus::Pending);
            }
            Outcome::Cancelled => self.enter(job, JobStatus::Aborting),
            Outcome::Failed(error) => {
                self.enter(job, JobStatus::Aborting);
                self.report_error(job, error);
            }
        }
        self.enter(job, JobStatus::Concluded);
        let event = match outcome {
            Outcome::Completed => completed(job, None),
            Outcome::Cancelled => Event::BlockJobCancelled(job.event_data()),
            Outcome::Failed(error) => completed(job, Some(error.to_string())),
        };
        self.events.send(event);
        self.enter(job, JobStatus::Null);
        let mut list = self.list.borrow_mut();
        list.retain(|known| !Rc::ptr_eq(known, job));
    }

    fn enter(&self, job: &Job, status: JobStatus) {
        job.status.set(status);
        let id = job.id.clone();
        let event = JobStatusChange { id, status };
        self.events.send(Event::JobStatusChange(event));
    }

    fn report_error(&self, job: &Job, error: &block::Error) {
        if error.kind() != ErrorKind::ShuttingDown {
            self.events.send(Event::BlockJobError(BlockJobError {
                device: job.id.clone(),
                operation: direction(error),
                action: BlockErrorAction::Report,
            }));
        }
    }

    /// The jobs of the node `owner`.
    pub(crate) fn of(&self, owner: &str) -> Vec<Rc<Job>> {
        let list = self.list.borrow();
        let jobs = list.iter().filter(|job| job.owner() == owner);
        jobs.cloned().collect()
    }

    /// `query-block-jobs`.
    pub(crate) fn block_infos(&self) -> Vec<BlockJobInfo> {
        let list = self.list.borrow();
        list.iter().map(|job| job.block_info()).collect()
    }

    /// `query-jobs`.
    pub(crate) fn infos(&self) -> Vec<JobInfo> {
        let list = self.list.borrow();
        list.iter().map(|job| job.info()).collect()
    }

    /// `block-job-cancel`, `job-cancel`, `job-dismiss`: internal jobs are not ended this way.
    pub(crate) fn refuse_control(&self, id: &str) -> Error {
        let list = self.list.borrow();
        match list.iter().find(|job| job.id == id) {
            None => {
                let message = format!("Block job '{id}' not found");
                Error::new(ErrorClass::DeviceNotActive, message)
            }
            Some(job) => Error::generic(format!(
                "Job '{id}' belongs to node '{}': it ends with xen-set-replication",
                job.owner
            )),
        }
    }
}

fn completed(job: &Job, error: Option<String>) -> Event {
    Event::BlockJobCompleted(BlockJobCompleted {
        progress: job.event_data(),
        error,
    })
}
