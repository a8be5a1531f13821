//! A bad network between a browser and the server: a UDP relay that loses, delays and chokes, each way.
//!
//! The server advertises the relay's address; each address that sends to the relay gets a socket of its own towards the
//! server. One thread; it ends with the value.

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What happens to datagrams, each way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Of a hundred, so many are lost.
    pub loss_percent: u32,
    pub delay: Duration,
    /// Bits a second towards the browser; what does not fit into 200 ms is lost. 0: no limit.
    pub rate: u64,
    /// Nothing passes.
    pub cut: bool,
}

pub struct Relay {
    pub address: SocketAddr,
    weather: Arc<Mutex<Weather>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Longest queue of a choked link.
const QUEUE: Duration = Duration::from_millis(200);
/// How long the thread sleeps when nothing came.
const NAP: Duration = Duration::from_micros(300);

/// A relay that has its address, but does not know the server's yet: the server is told the address at its start.
pub struct Bound(UdpSocket);

impl Bound {
    pub fn new() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").expect("loopback has ports"))
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    pub fn start(self, server: SocketAddr) -> Relay {
        let address = self.address();
        let weather = Arc::new(Mutex::new(Weather::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut link = Link {
            front: self.0,
            server,
            backs: HashMap::new(),
            weather: Arc::clone(&weather),
            flying: BTreeMap::new(),
            number: 0,
            random: 7,
            busy_until: Instant::now(),
        };
        link.front.set_nonblocking(true).expect("a socket can");
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if !link.turn() {
                    thread::sleep(NAP);
                }
            }
        });
        Relay { address, weather, stop, thread: Some(thread) }
    }
}

impl Relay {
    pub fn set(&self, weather: Weather) {
        *self.weather.lock().expect("nobody panics with it") = weather;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Link {
    front: UdpSocket,
    server: SocketAddr,
    /// By the browser's address.
    backs: HashMap<SocketAddr, UdpSocket>,
    weather: Arc<Mutex<Weather>>,
    flying: BTreeMap<(Instant, u64), (Way, Vec<u8>)>,
    number: u64,
    random: u64,
    /// When the choked link has sent all that it took.
    busy_until: Instant,
}

#[derive(Clone, Copy)]
enum Way {
    /// From the browser with this address.
    Up(SocketAddr),
    Down(SocketAddr),
}

impl Link {
    /// False when there was nothing to do.
    fn turn(&mut self) -> bool {
        let mut buffer = [0; 2048];
        let mut worked = false;
        while let Ok((length, from)) = self.front.recv_from(&mut buffer) {
            worked = true;
            self.backs.entry(from).or_insert_with(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
                socket.set_nonblocking(true).expect("a socket can");
                socket
            });
            self.take(Way::Up(from), buffer[..length].to_vec());
        }
        let mut down = Vec::new();
        for (browser, back) in &self.backs {
            while let Ok((length, _)) = back.recv_from(&mut buffer) {
                down.push((Way::Down(*browser), buffer[..length].to_vec()));
            }
        }
        worked |= !down.is_empty();
        down.into_iter().for_each(|(way, datagram)| self.take(way, datagram));
        let now = Instant::now();
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= now) {
            let (way, datagram) = entry.remove();
            worked = true;
            // What the system does not take is lost, as on any link.
            let _ = match way {
                Way::Up(browser) => self.backs[&browser].send_to(&datagram, self.server),
                Way::Down(browser) => self.front.send_to(&datagram, browser),
            };
        }
        worked
    }

    fn take(&mut self, way: Way, datagram: Vec<u8>) {
        let weather = *self.weather.lock().expect("nobody panics with it");
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if weather.cut || (self.random >> 33) % 100 < u64::from(weather.loss_percent) {
            return;
        }
        let now = Instant::now();
        let mut leaves = now;
        if weather.rate > 0 && matches!(way, Way::Down(_)) {
            leaves = self.busy_until.max(now);
            if leaves > now + QUEUE {
                return;
            }
            leaves += Duration::from_secs_f64(datagram.len() as f64 * 8.0 / weather.rate as f64);
            self.busy_until = leaves;
        }
        self.number += 1;
        self.flying.insert((leaves + weather.delay, self.number), (way, datagram));
    }
}
