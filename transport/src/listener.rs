//! Takes the port, and starts the threads: each shard has a socket for UDP and a listener for TCP, all on the same port.
//!
//! The first of each is bound as if it were the only one, so that another server there is noticed;
//! only then it lets its brothers beside it, and the kernel spreads peers over them by their addresses.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Instant,
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::sync::{mpsc, oneshot};

use crate::{
    directory::Seat,
    engine::{Config, StartError},
    inbox::{Command, Ends},
    metrics::Metrics,
    tcp,
    udp::Port,
};

/// Ports tried where any will do.
const PORT_ATTEMPTS: u32 = 32;
/// Connections that wait to be taken.
const TCP_BACKLOG: i32 = 1024;

/// What other shards have given and what was not handled yet: 2 MiB of datagrams at most. Datagrams on top are lost.
const MESSAGES_MAX: usize = 1024;

/// What one shard listens on.
pub(crate) struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: Option<TcpListener>,
}

/// How many shards there are: where the kernel does not spread, more would only hand datagrams to each other.
pub(crate) fn shards(config: &Config) -> usize {
    if cfg!(target_os = "linux") { config.shards.max(1) } else { 1 }
}

/// Starts a thread for each inbox; they end when the last engine handle is gone. Gives the bound address.
pub(crate) async fn start(
    config: &Config,
    inboxes: Vec<mpsc::Receiver<Command>>,
    metrics: Metrics,
) -> Result<SocketAddr, StartError> {
    let taken = |error| StartError::Bind(config.listen, error);
    let sockets = bind(config).map_err(taken)?;
    let bound = sockets[0].udp.local_addr().map_err(taken)?;
    let ways = tcp::Ways::new(inboxes.len());
    let (neighbours, messages): (Vec<_>, Vec<_>) = inboxes.iter().map(|_| mpsc::channel(MESSAGES_MAX)).unzip();
    let seats = Seat::all(inboxes.len(), Instant::now());
    for ((seat, sockets), (commands, messages)) in seats.into_iter().zip(sockets).zip(inboxes.into_iter().zip(messages)) {
        let (ways, metrics, neighbours) = (ways.clone(), metrics.clone(), neighbours.clone());
        let ends = Ends { commands, messages, neighbours };
        start_one(move || Port::open(sockets, ends, seat, ways, metrics).map_err(|error| StartError::Bind(bound, error))).await?;
    }
    Ok(bound)
}

/// A thread with a runtime of its own, in which the port is opened and run.
async fn start_one(open: impl FnOnce() -> Result<Port, StartError> + Send + 'static) -> Result<(), StartError> {
    let (ready, started) = oneshot::channel();
    let thread = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(StartError::Thread(error)))),
        };
        runtime.block_on(async move {
            match open() {
                Err(error) => drop(ready.send(Err(error))),
                Ok(port) => {
                    if ready.send(Ok(())).is_ok() {
                        port.run().await;
                    }
                }
            }
        });
    };
    std::thread::Builder::new().name("webrtc".into()).spawn(thread).map_err(StartError::Thread)?;
    started.await.map_err(|_| StartError::Thread(io::Error::other("it ended at once")))?
}

/// UDP and TCP on one port. Where any port will do, one whose twin is taken is given up for another.
fn bind(config: &Config) -> io::Result<Vec<Sockets>> {
    let mut attempts = if config.listen.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match bind_all(config) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_all(config: &Config) -> io::Result<Vec<Sockets>> {
    let first = bind_one(config.listen, config.tcp, Beside::Nobody)?;
    let shards = shards(config);
    if shards > 1 {
        share(SockRef::from(&first.udp))?;
        first.tcp.as_ref().map(|tcp| share(SockRef::from(tcp))).transpose()?;
    }
    let address = first.udp.local_addr()?;
    let others = (1..shards).map(|_| bind_one(address, config.tcp, Beside::Brothers));
    std::iter::once(Ok(first)).chain(others).collect()
}

/// Whom a socket lets have the same port.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nobody,
    Brothers,
}

fn bind_one(address: SocketAddr, with_tcp: bool, beside: Beside) -> io::Result<Sockets> {
    let udp: UdpSocket = open(address, Type::DGRAM, beside)?.into();
    let tcp = with_tcp.then(|| listen(udp.local_addr()?, beside)).transpose()?;
    Ok(Sockets { udp, tcp })
}

fn listen(address: SocketAddr, beside: Beside) -> io::Result<TcpListener> {
    let socket = open(address, Type::STREAM, beside)?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket.into())
}

fn open(address: SocketAddr, kind: Type, beside: Beside) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    // Connections of a former run may still be closing. On Windows the option would mean something else.
    if kind == Type::STREAM && cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    if beside == Beside::Brothers {
        share(SockRef::from(&socket))?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn share(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(target_os = "linux"))]
fn share(_: SockRef<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
