//! One HTTP connection: hyper over a socket that tells its `Patience` what happens.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
};
use hyper::{
    Request,
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use tower::Service;

use super::patience::{Limits, Patience, Verdict};

/// Headers in a request: browsers send some twenty.
const HEADERS_MAX: usize = 64;
/// Bytes in a head, and in hyper's buffer for writing: media goes past it as shared buffers.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How a TLS handshake begins, and no HTTP request.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves one connection to its end, which comes soon once `drain` is true. Returns how it ended,
/// as the metric's label says it.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    mut drain: watch::Receiver<bool>,
) -> &'static str {
    let patience = Arc::new(Patience::new(limits, Instant::now()));
    let tls = Arc::new(AtomicBool::new(false));
    let socket = Socket { stream, patience: Arc::clone(&patience), tls: Arc::clone(&tls), begun: false };
    let service = service_fn(|mut request: Request<Incoming>| {
        // Who admits publishers is told who asks.
        request.extensions_mut().insert(ConnectInfo(peer));
        answer(router.clone(), Arc::clone(&patience), request)
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            // hyper takes our error before the first byte for a peer that has left.
            ended = &mut connection => return if tls.load(Ordering::Relaxed) { "tls" } else { outcome(ended) },
            reason = out_of_patience(&patience) => return reason,
            _ = drain.wait_for(|drain| *drain), if !draining => {
                // hyper would wait for the rest of a head.
                if !patience.is_serving() {
                    return "drained";
                }
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn out_of_patience(patience: &Patience) -> &'static str {
    loop {
        match patience.verdict(Instant::now()) {
            Verdict::Over(reason) => return reason.as_str(),
            Verdict::WaitUntil(at) => tokio::time::sleep_until(at.into()).await,
        }
    }
}

async fn answer(
    mut router: Router,
    patience: Arc<Patience>,
    request: Request<Incoming>,
) -> Result<hyper::Response<Answering>, std::convert::Infallible> {
    let serving = Serving::new(patience);
    let response = router.call(request.map(Body::new)).await?;
    Ok(response.map(|body| Answering { body, _serving: serving }))
}

fn outcome(ended: hyper::Result<()>) -> &'static str {
    match ended {
        Ok(()) => "closed",
        Err(e) if e.is_parse() => "not_http",
        Err(_) => "error",
    }
}

/// While it lives, a response is being made or sent.
struct Serving(Arc<Patience>);

impl Serving {
    fn new(patience: Arc<Patience>) -> Self {
        patience.handle_request();
        Self(patience)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.handle_response_end(Instant::now());
    }
}

/// A response's body; hyper drops it with its last byte.
struct Answering {
    body: Body,
    _serving: Serving,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket, and who watches it.
struct Socket {
    stream: TcpStream,
    patience: Arc<Patience>,
    /// Set when the peer speaks TLS: someone typed `https://` for a port without it.
    tls: Arc<AtomicBool>,
    /// Whether the first byte has come.
    begun: bool,
}

impl Socket {
    fn note_write<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.patience.handle_write(result.is_ready(), Instant::now());
        result
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(first) = buffer.filled().get(before) {
            if !self.begun && *first == TLS_HANDSHAKE {
                self.tls.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            self.begun = true;
            self.patience.handle_bytes(Instant::now());
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_write(result)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.note_write(result)
    }

    /// Media is never copied into hyper's buffer.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
