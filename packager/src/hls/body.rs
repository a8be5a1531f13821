//! A response body of shared buffers: what a viewer is sent is what all are sent.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::HttpBody;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;

/// Buffers one after the other, with their length known ahead.
pub struct Buffers {
    left: u64,
    buffers: VecDeque<Bytes>,
}

impl Buffers {
    pub fn new(buffers: Vec<Bytes>) -> Self {
        let left = buffers.iter().map(|b| b.len() as u64).sum();
        Self { left, buffers: buffers.into() }
    }

    pub fn len(&self) -> u64 {
        self.left
    }

    /// Only the bytes from `start` to before `end`.
    pub fn slice(mut self, start: u64, end: u64) -> Self {
        let mut at = 0;
        let mut kept = VecDeque::new();
        while let Some(buffer) = self.buffers.pop_front() {
            let len = buffer.len() as u64;
            let (from, to) = (start.clamp(at, at + len) - at, end.clamp(at, at + len) - at);
            if from < to {
                let bound = |n: u64| usize::try_from(n).expect("within one buffer");
                kept.push_back(buffer.slice(bound(from)..bound(to)));
            }
            at += len;
        }
        Self::new(kept.into())
    }

    pub fn into_body(self) -> axum::body::Body {
        axum::body::Body::new(self.map_err(|never| match never {}))
    }
}

impl HttpBody for Buffers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.buffers.pop_front();
        if let Some(buffer) = &next {
            self.left -= buffer.len() as u64;
        }
        Poll::Ready(next.map(|buffer| Ok(Frame::data(buffer))))
    }
}
