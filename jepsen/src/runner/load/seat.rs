//! A worker's seat: its process number, its client, and the rule by which both are changed.

use std::time::Duration;

use super::Load;
use crate::system::{Client, Completion, Invocation};

/// Past its deadline an operation has this long to end by itself; then it is cut off and counted,
/// since a client that does not keep its deadlines hides what the system does.
const GRACE: Duration = Duration::from_secs(5);
/// How long making a client may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Bound on the reasons kept for one worker.
const KEPT_REFUSALS: usize = 5;

/// Carries out operations one by one and writes each into the history.
pub struct Seat<'a> {
    load: &'a Load,
    worker: u64,
    process: u64,
    client: Option<Box<dyn Client>>,
    report: SeatReport,
}

/// What happened in a seat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatReport {
    /// The worker.
    pub worker: u64,
    /// Its process number at the end: not used by an operation that ended unknown.
    pub process: u64,
    /// Operations that had to be cut off after their deadline.
    pub hung: u64,
    /// Attempts to make a client that failed.
    pub refused: u64,
    /// The first reasons for that.
    pub refusals: Vec<String>,
}

impl<'a> Seat<'a> {
    pub(super) fn new(load: &'a Load, worker: u64, process: u64) -> Self {
        Self {
            load,
            worker,
            process,
            client: None,
            report: SeatReport {
                worker,
                ..SeatReport::default()
            },
        }
    }

    /// Makes a client if there is none; `None` if that failed, which is counted.
    pub async fn connect(&mut self, workload: &str) -> Option<()> {
        if self.client.is_some() {
            return Some(());
        }
        let load = self.load;
        let made = load
            .system
            .client(workload, self.worker as usize, &load.hosts);
        let why = match tokio::time::timeout(CONNECT, made).await {
            Ok(Ok(client)) => {
                self.client = Some(client);
                return Some(());
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no client after {} s", CONNECT.as_secs()),
        };
        self.report.refused += 1;
        if self.report.refusals.len() < KEPT_REFUSALS {
            self.report.refusals.push(why);
        }
        None
    }

    /// Carries out one operation with the client that [`connect`](Self::connect) made. Unknown
    /// retires process and client.
    ///
    /// # Errors
    ///
    /// The history cannot be written.
    pub async fn perform(&mut self, invocation: &Invocation) -> anyhow::Result<Completion> {
        let recorder = &self.load.recorder;
        recorder.invoked(self.process, invocation)?;
        let limit = invocation.deadline + GRACE;
        let completion = match &mut self.client {
            None => Completion::Fail("no client: nothing was sent".into()),
            Some(client) => match tokio::time::timeout(limit, client.invoke(invocation)).await {
                Ok(completion) => completion,
                Err(_) => {
                    self.report.hung += 1;
                    Completion::Unknown("cut off: the client kept no deadline".into())
                }
            },
        };
        recorder.ended(self.process, invocation, &completion)?;
        if matches!(completion, Completion::Unknown(_)) {
            self.client = None;
            self.process += self.load.workers();
        }
        Ok(completion)
    }

    /// What happened so far.
    pub fn report(&self) -> SeatReport {
        SeatReport {
            process: self.process,
            ..self.report.clone()
        }
    }
}
