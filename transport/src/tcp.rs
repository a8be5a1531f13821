//! ICE-TCP (RFC 6544): where UDP is blocked, the same datagrams behind a length of two bytes
//! (RFC 4571). A connection is nobody's until a proved check came over it.
//!
//! Each connection has a task that reads and one that writes, in the thread that took it; a peer that
//! does not read loses datagrams, as it would by UDP. Any thread may send to it.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use crate::{metrics::Metrics, path::Path, send::Burst};

/// Connections at once; each has two tasks and the queue below.
const CONNECTIONS_MAX: usize = 1024;
/// Between two datagrams.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// From the connection to our first answer: who has not passed a check by then does not stay.
const CHECK_WAIT: Duration = Duration::from_secs(10);
/// Datagrams of peers: what fits the usual path, and a rest.
const DATAGRAM_BYTES_MAX: usize = 2048;
/// Bursts that wait for a slow peer.
const WAITING_MAX: usize = 64;
/// And their bytes: a second and a half of 6 Mbit/s. What comes on top is lost, and the viewer goes on at a keyframe.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Datagrams that wait for the engine, of all connections.
const ARRIVALS_MAX: usize = 1024;
/// Pause after a failed accept: the usual reason is that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

pub(crate) enum Arrival {
    Datagram { path: Path, bytes: Vec<u8> },
    Ended(Path),
}

type Writers = Mutex<HashMap<u64, Writer>>;

/// The ways to the connections of all shards, which share one limit.
#[derive(Clone)]
pub(crate) struct Ways {
    /// Of each shard. A connection's number tells whose it is, so that shards do not wait for each other.
    writers: Arc<[Writers]>,
    places: Arc<Semaphore>,
}

/// The way to a connection's task that writes.
struct Writer {
    sender: mpsc::Sender<Framed>,
    room: Arc<Semaphore>,
}

/// Datagrams behind their lengths.
struct Framed {
    bytes: Vec<u8>,
    /// Taken until they are written.
    _room: OwnedSemaphorePermit,
}

/// All connections of one shard, and the ways to all others.
pub(crate) struct Connections {
    ways: Ways,
    arrivals: Option<mpsc::Receiver<Arrival>>,
}

impl Ways {
    pub(crate) fn new(shards: usize) -> Self {
        Self { writers: (0..shards).map(|_| Writers::default()).collect(), places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    fn of(&self, connection: u64) -> MutexGuard<'_, HashMap<u64, Writer>> {
        let shard = (connection % self.writers.len() as u64) as usize;
        self.writers[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    /// In the runtime of the shard's thread.
    pub(crate) fn new(listener: Option<TcpListener>, shard: usize, ways: Ways, metrics: Metrics) -> Self {
        let arrivals = listener.map(|listener| {
            let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
            tokio::spawn(accept(listener, shard as u64, ways.clone(), sender, metrics));
            arrivals
        });
        Self { ways, arrivals }
    }

    pub(crate) async fn next(&mut self) -> Arrival {
        match &mut self.arrivals {
            Some(arrivals) => match arrivals.recv().await {
                Some(arrival) => arrival,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    pub(crate) fn try_next(&mut self) -> Option<Arrival> {
        self.arrivals.as_mut()?.try_recv().ok()
    }

    /// False when the peer does not read fast enough.
    pub(crate) fn send(&self, connection: u64, burst: &Burst) -> bool {
        let writers = self.ways.of(connection);
        let Some(writer) = writers.get(&connection) else { return true };
        let length = burst.bytes.len() + 2 * burst.datagrams().count();
        let room = u32::try_from(length).ok().and_then(|length| Arc::clone(&writer.room).try_acquire_many_owned(length).ok());
        let Some(room) = room else { return false };
        let mut bytes = Vec::with_capacity(length);
        for datagram in burst.datagrams() {
            let length = u16::try_from(datagram.len()).expect("our datagrams fit the usual path");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(datagram);
        }
        !matches!(writer.sender.try_send(Framed { bytes, _room: room }), Err(mpsc::error::TrySendError::Full(_)))
    }
}

async fn accept(listener: TcpListener, shard: u64, ways: Ways, arrivals: mpsc::Sender<Arrival>, metrics: Metrics) {
    for connection in (shard..).step_by(ways.writers.len()) {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = arrivals.closed() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&ways.places).try_acquire_owned() else {
            metrics.tcp_refused.inc();
            continue;
        };
        let path = Path::Tcp { connection, remote };
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let writer = Writer { sender, room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)) };
        ways.of(connection).insert(connection, writer);
        let (ways, arrivals, metrics) = (ways.clone(), arrivals.clone(), metrics.clone());
        tokio::spawn(async move {
            metrics.tcp_connections.inc();
            let ended = serve(stream, path, waiting, &arrivals).await;
            if ended.is_err() {
                metrics.tcp_refused.inc();
            }
            ways.of(connection).remove(&connection);
            let _ = arrivals.send(Arrival::Ended(path)).await;
            metrics.tcp_connections.dec();
            drop(place);
        });
    }
}

/// Until the peer closes, falls silent, or sends what is no datagram.
async fn serve(
    stream: TcpStream,
    path: Path,
    mut waiting: mpsc::Receiver<Framed>,
    arrivals: &mpsc::Sender<Arrival>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let answered = Arc::new(AtomicBool::new(false));
    let proved = Arc::clone(&answered);
    let check_until = Instant::now() + CHECK_WAIT;
    let writing = tokio::spawn(async move {
        while let Some(framed) = waiting.recv().await {
            proved.store(true, Ordering::Relaxed);
            if !matches!(timeout(SILENCE_MAX, writer.write_all(&framed.bytes)).await, Ok(Ok(()))) {
                break;
            }
        }
    });
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let ended = loop {
        let stranger = !answered.load(Ordering::Relaxed);
        if stranger && Instant::now() >= check_until {
            break Err(io::ErrorKind::PermissionDenied.into());
        }
        let patience = if stranger { CHECK_WAIT } else { SILENCE_MAX };
        let length = match timeout(patience, reader.read_u16()).await {
            Ok(Ok(length)) => usize::from(length),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break Ok(()),
            Ok(Err(error)) => break Err(error),
            Err(_) => break Err(io::ErrorKind::TimedOut.into()),
        };
        let Some(datagram) = buffer.get_mut(..length) else { break Err(io::ErrorKind::InvalidData.into()) };
        if !matches!(timeout(SILENCE_MAX, reader.read_exact(datagram)).await, Ok(Ok(_))) {
            break Err(io::ErrorKind::UnexpectedEof.into());
        }
        if arrivals.send(Arrival::Datagram { path, bytes: datagram.to_vec() }).await.is_err() {
            break Ok(());
        }
    };
    writing.abort();
    ended
}
