//! One receiver: started, waited for until it listens, and then asked for what it hears.

use std::{
    path::Path,
    task::{Context, Poll},
    time::Duration,
};

use media_core::StreamName;
use tokio::time::timeout;

use crate::{
    conn::{Ended, Worker},
    wire::receive::{Heard, Listen},
};

/// The word that makes the program a receiver.
const TASK: &str = "receive";
/// How long it may take to load GStreamer and listen. A caller has given up long before; the first start on a machine
/// reads all plugins, and makes the next one fast.
const START_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the program cannot be started: {0}")]
    Spawn(std::io::Error),
    #[error("it did not listen within {} s", START_WAIT.as_secs())]
    Late,
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Ended(Ended),
}

/// A child that listens, or hears. It ends with the value.
pub struct Receiver {
    /// On loopback.
    pub port: u16,
    worker: Option<Worker<Listen, Heard>>,
}

pub async fn start(program: &Path, name: &StreamName, listen: Listen) -> Result<Receiver, StartError> {
    let mut worker = Worker::<Listen, Heard>::spawn(program, Some(TASK), name).map_err(StartError::Spawn)?;
    let first = async {
        worker.send(listen).map_err(|stuck| StartError::Failed(stuck.to_string()))?;
        match worker.reports.recv().await {
            Some(Ok(Heard::Listening { port })) => Ok(port),
            Some(Ok(Heard::Failed(sentence))) => Err(StartError::Failed(sentence)),
            Some(Ok(_)) => Err(StartError::Failed("it said something else first".into())),
            Some(Err(ended)) => Err(StartError::Ended(ended)),
            None => Err(StartError::Ended(Ended::Closed)),
        }
    };
    match timeout(START_WAIT, first).await {
        Ok(Ok(port)) => Ok(Receiver { port, worker: Some(worker) }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Late),
    }
}

impl Receiver {
    /// What it hears; an error once it has died.
    pub fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, String>> {
        let Some(worker) = &mut self.worker else { return Poll::Pending };
        worker.reports.poll_recv(cx).map(|heard| match heard {
            Some(Ok(heard)) => Ok(heard),
            Some(Err(ended)) => Err(ended.to_string()),
            None => Err(Ended::Closed.to_string()),
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.close();
        }
    }
}
