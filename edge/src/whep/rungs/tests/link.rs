//! A viewer behind a link, and the loop from what arrives there to what is sent.

use transport::{Bandwidth, rtp::TransportFeedback};

use super::*;

const MS: Duration = Duration::from_millis(1);
const QUEUE_MAX: Duration = Duration::from_millis(250);
const DELAY: Duration = Duration::from_millis(25);

struct Loop {
    start: Instant,
    now: Instant,
    selector: Selector,
    bandwidth: Bandwidth,
    front: Front,
    /// Bits a second.
    rate: f64,
    lost: u64,
    jitter: Duration,
    busy: Instant,
    random: u64,
    arrived: Vec<(u64, Option<Instant>)>,
    /// Wanted, and from when on it is sent.
    coming: Option<(TrackId, Instant)>,
    warm: Vec<TrackId>,
    debt: f64,
    /// When what went out, in tenths of a second.
    log: Vec<(u64, &'static str)>,
    /// Packets lost in the queue.
    dropped: u64,
}

impl Loop {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            selector: Selector::new(),
            bandwidth: Bandwidth::new(now, true),
            front: front(),
            rate: 50e6,
            lost: 0,
            jitter: Duration::ZERO,
            busy: now,
            random: 5,
            arrived: Vec::new(),
            coming: None,
            warm: vec![TrackId::VIDEO],
            debt: 0.0,
            log: Vec::new(),
            dropped: 0,
        }
    }

    fn random(&mut self, most: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % most.max(1)
    }

    fn send(&mut self, bytes: usize) {
        let number = self.bandwidth.numbers().unwrap().take(self.now, bytes);
        self.bandwidth.sent(self.now, bytes);
        let begins = self.busy.max(self.now);
        let is_full = begins > self.now + QUEUE_MAX;
        self.dropped += u64::from(is_full);
        if is_full || self.random(1000) < self.lost {
            return self.arrived.push((number, None));
        }
        self.busy = begins + Duration::from_secs_f64(bytes as f64 * 8.0 / self.rate);
        let late = Duration::from_micros(self.random(self.jitter.as_micros() as u64 + 1));
        self.arrived.push((number, Some(self.busy + DELAY + late)));
    }

    fn run(&mut self, rate: f64, seconds: u64) {
        self.rate = rate;
        for _ in 0..seconds * 1000 {
            self.step();
            self.now += MS;
        }
    }

    fn step(&mut self) {
        let ms = (self.now - self.start).as_millis() as u64;
        if ms.is_multiple_of(20) {
            self.send(170);
        }
        if let Some((track, _)) = self.coming.take_if(|(_, at)| *at <= self.now) {
            self.selector.switched();
            self.warm.push(track);
            self.log.push((ms / 100, name(track)));
            self.picture(6.0);
        } else if [0, 33, 67].contains(&(ms % 100)) {
            self.picture(if ms.is_multiple_of(2000) { 6.0 } else { 55.0 / 60.0 });
        }
        let mut due = self.bandwidth.poll_bytes(self.now) as i64;
        while due > 0 {
            due -= 1200;
            self.send(1200);
        }
        if ms % 50 == 7 {
            self.tell();
        }
        if let Some(bitrate) = self.bandwidth.poll_bitrate(self.now) {
            self.selector.estimate(bitrate);
        }
        if let Some(Switch { to, .. }) = self.selector.look(self.now, &self.front, None) {
            // A rung that nobody has watched before starts first.
            let wait = if self.warm.contains(&to) { 200 * MS } else { 1500 * MS };
            self.coming = (to != self.selector.current()).then_some((to, self.now + wait));
        }
        self.bandwidth.aim(self.selector.aim());
    }

    fn picture(&mut self, weight: f64) {
        let track = self.selector.current();
        let bitrate = match track.rung_number() {
            None => 3e6,
            Some(number) => [0.0, 1.5e6, 0.8e6, 0.4e6, 0.2e6][number],
        };
        self.debt += bitrate / 30.0 / 8.0 * weight;
        while self.debt > 0.0 {
            let bytes = self.debt.clamp(200.0, 1200.0);
            self.debt -= bytes;
            self.send(bytes as usize);
        }
    }

    fn tell(&mut self) {
        let heard = self.now - DELAY;
        let Some(last) = self.arrived.iter().rposition(|(_, at)| at.is_some_and(|at| at <= heard)) else { return };
        let told: Vec<_> = self.arrived.drain(..=last).collect();
        let ticks = |at: Instant| ((at - self.start).as_micros() / 250) as u32;
        let arrivals = told.iter().map(|(_, at)| at.map(ticks)).collect();
        self.bandwidth.handle_feedback(self.now, &TransportFeedback { base: told[0].0 as u16, arrivals });
    }

    fn current(&self) -> &'static str {
        name(self.selector.current())
    }

    fn tenths(&self) -> u64 {
        (self.now - self.start).as_millis() as u64 / 100
    }
}

#[test]
fn a_link_that_falls_and_recovers_is_followed() {
    let mut viewer = Loop::new();
    viewer.run(50e6, 10);
    assert!(viewer.log.is_empty(), "{:?}", viewer.log);
    viewer.run(1e6, 3);
    assert!(["rung-3", "rung-4"].contains(&viewer.current()), "{:?}", viewer.log);
    viewer.run(1e6, 17);
    assert!(["rung-3", "rung-4"].contains(&viewer.current()), "{:?}", viewer.log);
    let lifted = viewer.tenths();
    viewer.run(50e6, 22);
    let back = viewer.log.iter().find(|(at, rung)| *at > lifted && *rung == "source");
    assert!(back.is_some(), "{lifted} {:?}", viewer.log);
}

#[test]
fn on_a_steady_link_the_picture_does_not_change_all_the_time() {
    for (rate, allowed) in [(700e3, 12), (1e6, 12), (1.4e6, 12), (1.9e6, 12), (2.5e6, 12), (3.3e6, 12), (5e6, 4)] {
        for (lost, jitter) in [(0, Duration::ZERO), (5, 8 * MS)] {
            let mut viewer = Loop::new();
            (viewer.lost, viewer.jitter) = (lost, jitter);
            viewer.run(rate, 600);
            let changes = viewer.log.len();
            assert!(changes <= allowed, "{rate} bit/s, {lost}: {changes} changes {:?}", viewer.log);
            assert!(viewer.current() != "rung-5", "{rate} bit/s, {lost}: {:?}", viewer.log);
        }
    }
}

#[test]
fn a_good_link_is_left_alone_for_hours() {
    let mut viewer = Loop::new();
    (viewer.lost, viewer.jitter) = (5, 10 * MS);
    viewer.run(20e6, 3600);
    assert_eq!((viewer.log.len(), viewer.bandwidth.probes), (0, 0), "{:?}", viewer.log);
}
