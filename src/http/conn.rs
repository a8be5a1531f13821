//! One HTTP connection: hyper over a socket that tells its `Patience` what happens. HTTP/1.1, or HTTP/2 where TLS has
//! agreed on it.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
};
use hyper::{
    Method, Request,
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    header::{HOST, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};
use tower::Service;
use transport::resource::SCHEME;

use super::patience::{Limits, Patience, Verdict};

/// Headers in a request: browsers send some twenty.
const HEADERS_MAX: usize = 64;
/// Bytes in a head, and in hyper's buffer for writing: media goes past it as shared buffers.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How a TLS handshake begins, and no HTTP request.
pub const TLS_HANDSHAKE: u8 = 0x16;
/// Requests of one HTTP/2 connection at once: a player holds two a rendition, and fetches some more.
const STREAMS_MAX: u32 = 128;
/// What is buffered of a response: media goes in shared buffers of a part each.
const SEND_BUFFER: usize = 256 << 10;
/// A peer that lost its network is found out so: bytes in flight tell nothing where none are.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(20);

/// How a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Without TLS.
    Plain,
    Secure {
        http2: bool,
    },
}

/// Serves one connection to its end, which comes soon once `drain` is true. Returns how it ended,
/// as the metric's label says it.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    kind: Kind,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    drain: watch::Receiver<bool>,
) -> &'static str {
    let http2 = kind == Kind::Secure { http2: true };
    let patience = Arc::new(Patience::new(limits, http2, Instant::now()));
    let tls = Arc::new(AtomicBool::new(false));
    let socket = Socket { stream, kind, patience: Arc::clone(&patience), tls: Arc::clone(&tls), begun: false };
    let service = service_fn(|mut request: Request<Incoming>| {
        // Who admits publishers is told who asks.
        request.extensions_mut().insert(ConnectInfo(peer));
        name_host(&mut request);
        name_scheme(&mut request, kind);
        answer(router.clone(), Arc::clone(&patience), request)
    });
    let io = TokioIo::new(socket);
    if http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WAIT);
        let connection = pin!(builder.serve_connection(io, service));
        return drive(connection, |connection| connection.graceful_shutdown(), &patience, &tls, drain).await;
    }
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX);
    let connection = pin!(builder.serve_connection(io, service));
    drive(connection, |connection| connection.graceful_shutdown(), &patience, &tls, drain).await
}

/// HTTP/2 has the host in the address (RFC 9113 8.3.1); what reads headers finds it there.
fn name_host(request: &mut Request<Incoming>) {
    if !request.headers().contains_key(HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// Addresses are told as they were reached.
fn name_scheme(request: &mut Request<Incoming>, kind: Kind) {
    request.headers_mut().remove(SCHEME);
    if kind != Kind::Plain {
        request.headers_mut().insert(SCHEME, HeaderValue::from_static("https"));
    }
}

async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    patience: &Patience,
    tls: &AtomicBool,
    mut drain: watch::Receiver<bool>,
) -> &'static str {
    let mut draining = false;
    loop {
        tokio::select! {
            // hyper takes our error before the first byte for a peer that has left.
            ended = &mut connection => return if tls.load(Ordering::Relaxed) { "tls" } else { outcome(ended) },
            reason = out_of_patience(patience) => return reason,
            _ = drain.wait_for(|drain| *drain), if !draining => {
                // hyper would wait for the rest of a head.
                if !patience.is_serving() {
                    return "drained";
                }
                draining = true;
                shut_down(connection.as_mut());
            }
        }
    }
}

/// Asks whenever something has happened on the connection, and when time runs out: a flood is not waited for.
async fn out_of_patience(patience: &Patience) -> &'static str {
    let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|cx| {
        loop {
            let at = match patience.verdict(Instant::now()) {
                Verdict::Over(reason) => return Poll::Ready(reason.as_str()),
                Verdict::WaitUntil(at) => at.into(),
            };
            // An alarm that rings too early costs a question, setting it at each packet costs more.
            if alarm.is_elapsed() || at < alarm.deadline() {
                alarm.as_mut().reset(at);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

async fn answer(
    mut router: Router,
    patience: Arc<Patience>,
    request: Request<Incoming>,
) -> Result<hyper::Response<Answering>, std::convert::Infallible> {
    let mut serving = Serving::new(patience);
    // Nobody takes the body of an answer to HEAD.
    let bare = request.method() == Method::HEAD;
    let response = router.call(request.map(Body::new)).await?;
    Ok(response.map(|body| {
        serving.whole = bare || body.is_end_stream();
        serving.has_bytes(!serving.whole);
        Answering { body, serving }
    }))
}

fn outcome(ended: hyper::Result<()>) -> &'static str {
    match ended {
        Ok(()) => "closed",
        Err(e) if e.is_parse() => "not_http",
        Err(e) if is_too_much(&e) => "rapid_reset",
        Err(_) => "error",
    }
}

/// The HTTP/2 library itself has had enough of streams that were reset as soon as they were opened (RFC 9113 7).
fn is_too_much(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.and_then(h2::Error::reason) == Some(h2::Reason::ENHANCE_YOUR_CALM)
}

/// While it lives, a response is being made or sent.
struct Serving {
    patience: Arc<Patience>,
    /// It has bytes for the peer.
    ready: bool,
    /// Its last byte was taken.
    whole: bool,
}

impl Serving {
    fn new(patience: Arc<Patience>) -> Self {
        patience.handle_request();
        Self { patience, ready: false, whole: false }
    }

    fn has_bytes(&mut self, ready: bool) {
        match (std::mem::replace(&mut self.ready, ready), ready) {
            (false, true) => self.patience.handle_ready(Instant::now()),
            (true, true) => self.patience.handle_taken(Instant::now()),
            (true, false) => self.patience.handle_lull(),
            (false, false) => {}
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.has_bytes(false);
        self.patience.handle_response_end(self.whole, Instant::now());
    }
}

/// A response's body; hyper drops it with its last byte.
struct Answering {
    body: Body,
    serving: Serving,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.serving.has_bytes(frame.is_ready());
        self.serving.whole = matches!(frame, Poll::Ready(None)) || self.body.is_end_stream();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket, and who watches it.
struct Socket<S> {
    stream: S,
    kind: Kind,
    patience: Arc<Patience>,
    /// Set when the peer speaks TLS: someone typed `https://` for a port without it.
    tls: Arc<AtomicBool>,
    /// Whether the first byte has come.
    begun: bool,
}

impl<S> Socket<S> {
    fn note_write<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.patience.handle_write(result.is_ready(), Instant::now());
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(first) = buffer.filled().get(before) {
            if !self.begun && self.kind == Kind::Plain && *first == TLS_HANDSHAKE {
                self.tls.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            self.begun = true;
            self.patience.handle_bytes(Instant::now());
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
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
