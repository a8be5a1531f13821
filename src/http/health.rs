//! Whether the process is alive, and whether it wants work.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::problem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    /// Finishing what is here; new work belongs elsewhere.
    Draining,
}

/// The process's phase, shared by who sets it and who answers.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    pub fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// `/readyz`: for load balancers and orchestrators.
    pub fn ready(&self) -> Response {
        match self.phase() {
            Phase::Ready => plain("ready\n"),
            Phase::Starting => problem::response(StatusCode::SERVICE_UNAVAILABLE, "the server is starting"),
            Phase::Draining => problem::response(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down"),
        }
    }
}

/// `/healthz`: answered as long as anything is.
pub fn alive() -> Response {
    plain("alive\n")
}

fn plain(text: &'static str) -> Response {
    ([(header::CACHE_CONTROL, "no-store"), (header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_ready_server_says_so() {
        let health = Health::default();
        let check = |phase, status: u16| {
            health.enter(phase);
            assert_eq!((health.phase(), health.ready().status().as_u16()), (phase, status));
        };
        check(Phase::Starting, 503);
        check(Phase::Ready, 200);
        check(Phase::Draining, 503);
        assert_eq!(Health::default().phase(), Phase::Starting);
    }
}
