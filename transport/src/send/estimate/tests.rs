//! A viewer behind a link of a given rate, in virtual time.

use super::*;
use crate::{
    rtp::{TransportFeedback, rtcp::Reception},
    send::Bandwidth,
};

const MS: Duration = Duration::from_millis(1);
/// What a link holds back at most.
const QUEUE_MAX: Duration = Duration::from_millis(250);
const SOUND_BYTES: usize = 160;

/// What the way does.
#[derive(Clone, Copy)]
struct Weather {
    rate: f64,
    delay: Duration,
    /// Later than that by up to so much.
    jitter: Duration,
    /// Of a thousand.
    lost: u64,
    /// What it could have carried in so much of the time before passes at once, as shapers let it.
    store: Duration,
}

const FAST: Weather =
    Weather { rate: 50e6, delay: Duration::from_millis(20), jitter: Duration::ZERO, lost: 0, store: Duration::ZERO };

struct Viewer {
    start: Instant,
    now: Instant,
    bandwidth: Bandwidth,
    weather: Weather,
    busy: Instant,
    random: u64,
    /// Number and arrival.
    arrived: Vec<(u64, Option<Instant>)>,
    /// Sent as pictures, in bits a second.
    pictures: f64,
    known: Option<u64>,
    debt: f64,
    padded: u64,
    /// The longest queue.
    queue_max: Duration,
}

impl Viewer {
    fn new(pictures: f64, weather: Weather) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            bandwidth: Bandwidth::new(now, true),
            weather,
            busy: now,
            random: 7,
            arrived: Vec::new(),
            pictures,
            known: None,
            debt: 0.0,
            padded: 0,
            queue_max: Duration::ZERO,
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
        if is_full || self.random(1000) < self.weather.lost {
            return self.arrived.push((number, None));
        }
        let begins = self.busy.max(self.now.checked_sub(self.weather.store).unwrap_or(self.now));
        self.busy = begins + Duration::from_secs_f64(bytes as f64 * 8.0 / self.weather.rate);
        self.queue_max = self.queue_max.max(self.busy.saturating_duration_since(self.now));
        let late = self.random(self.weather.jitter.as_micros() as u64 + 1);
        let left = self.busy.max(self.now) + self.weather.delay;
        self.arrived.push((number, Some(left + Duration::from_micros(late))));
    }

    /// So many seconds: thirty pictures each, every sixtieth a keyframe of six times the size, and fifty packets of sound.
    fn run(&mut self, seconds: f64) {
        let steps = (seconds * 1000.0) as u64;
        for _ in 0..steps {
            let ms = (self.now - self.start).as_millis() as u64;
            if ms.is_multiple_of(20) {
                self.send(SOUND_BYTES);
            }
            if [0, 33, 67].contains(&(ms % 100)) {
                let weight = if ms.is_multiple_of(2000) { 6.0 } else { 55.0 / 60.0 };
                self.debt += self.pictures / 30.0 / 8.0 * weight;
                while self.debt > 0.0 {
                    let bytes = self.debt.clamp(200.0, 1200.0);
                    self.debt -= bytes;
                    self.send(bytes as usize);
                }
            }
            let mut due = self.bandwidth.poll_bytes(self.now) as i64;
            while due > 0 {
                self.padded += 1200;
                due -= 1200;
                self.send(1200);
            }
            if ms % 50 == 7 {
                self.tell();
            }
            self.known = self.bandwidth.poll_bitrate(self.now).or(self.known);
            self.now += MS;
        }
    }

    /// What has arrived, and what was overtaken by that, is told.
    fn tell(&mut self) {
        let heard = self.now - self.weather.delay;
        let Some(last) = self.arrived.iter().rposition(|(_, at)| at.is_some_and(|at| at <= heard)) else { return };
        let told: Vec<_> = self.arrived.drain(..=last).collect();
        // Twelve hours into the viewer's clock.
        let ticks = |at: Instant| ((at - self.start).as_micros() / 250) as u32 + 172_800_000;
        let arrivals = told.iter().map(|(_, at)| at.map(ticks)).collect();
        self.bandwidth.handle_feedback(self.now, &TransportFeedback { base: told[0].0 as u16, arrivals });
    }

    fn mbit(&self) -> Option<f64> {
        self.known.map(|bits| bits as f64 / 1e6)
    }
}

#[track_caller]
fn check(viewer: &Viewer, range: std::ops::Range<f64>) {
    let mbit = viewer.mbit().expect("a limit was met");
    assert!(range.contains(&mbit), "{mbit} is not in {range:?}");
}

#[test]
fn a_good_link_has_no_limit() {
    for weather in [FAST, Weather { rate: 6e6, ..FAST }, Weather { delay: 150 * MS, ..FAST }, Weather { lost: 10, ..FAST }] {
        let mut viewer = Viewer::new(3e6, weather);
        viewer.run(600.0);
        assert_eq!(viewer.known, None, "{} bit/s", weather.rate);
    }
}

#[test]
fn jitter_alone_is_no_congestion() {
    for jitter in [5, 15, 30] {
        let mut viewer = Viewer::new(3e6, Weather { jitter: jitter * MS, ..FAST });
        viewer.run(300.0);
        assert!(viewer.mbit().is_none_or(|mbit| mbit > 2.7), "{jitter} ms: {:?}", viewer.mbit());
    }
}

#[test]
fn a_link_that_is_too_slow_is_measured_at_once() {
    for (rate, range) in [(1e6, 0.7..1.0), (2e6, 1.5..2.0), (500e3, 0.35..0.5)] {
        let mut viewer = Viewer::new(3e6, FAST);
        viewer.run(10.0);
        viewer.weather.rate = rate;
        viewer.run(0.9);
        check(&viewer, range.start..range.end * 1.6);
        viewer.run(0.6);
        check(&viewer, range.clone());
        // And stays so, while less is sent.
        viewer.pictures = range.start * 0.8e6;
        viewer.run(20.0);
        check(&viewer, range.start * 0.9..range.end * 1.2);
    }
}

/// Feedback comes every 50 ms, and what the queue holds at first arrives as before. The first of these begins with a keyframe.
#[test]
fn a_fall_is_known_before_the_queue_is_long() {
    for (rate, range) in [(1e6, 0.8..1.0), (1.5e6, 1.2..1.5), (2e6, 1.6..2.0)] {
        let mut all = 0;
        for phase in 0..10 {
            let mut viewer = Viewer::new(3e6, FAST);
            viewer.run(10.0 + f64::from(phase) * 0.01);
            viewer.weather.rate = rate;
            let known = (1..).find(|_| {
                viewer.run(0.01);
                viewer.known.is_some()
            });
            check(&viewer, range.clone());
            let after = known.expect("it is known at some time") * 10;
            assert!(after <= 420, "{rate} bit/s, {phase}: after {after} ms");
            all += after;
        }
        assert!(all / 10 <= 350, "{rate} bit/s: after {} ms", all / 10);
    }
}

/// Radio links do that: for a moment nothing passes, then all of it.
#[test]
fn a_pause_of_the_link_is_no_fall() {
    // A slower one takes a while to make up for a long pause.
    for (rate, longest) in [(4e6, 100), (10e6, 200), (50e6, 200)] {
        for pause in (50..=longest).step_by(50) {
            let mut viewer = Viewer::new(3e6, Weather { rate, ..FAST });
            for second in 0..60 {
                viewer.run(1.0 + f64::from(second % 10) * 0.01);
                viewer.busy = viewer.busy.max(viewer.now + pause * MS);
            }
            assert!(viewer.mbit().is_none_or(|mbit| mbit > 2.7), "{pause} ms, {rate}: {:?}", viewer.mbit());
        }
    }
}

/// Nor are two, one soon behind the other: what distinguishes them is that for a while nothing came.
#[test]
fn pauses_in_a_row_are_no_fall() {
    for rate in [4e6, 5e6, 8e6] {
        for (pause, apart) in [(50, 0.04), (60, 0.05), (60, 0.08), (80, 0.06)] {
            let mut viewer = Viewer::new(3e6, Weather { rate, ..FAST });
            for second in 0..60 {
                viewer.run(1.5 + f64::from(second % 10) * 0.01);
                viewer.busy = viewer.busy.max(viewer.now) + pause * MS;
                viewer.run(apart);
                viewer.busy = viewer.busy.max(viewer.now) + pause * MS;
            }
            assert!(viewer.mbit().is_none_or(|mbit| mbit > 2.7), "{pause} ms, {apart} s, {rate}: {:?}", viewer.mbit());
        }
    }
}

/// As a machine shows it that is busy with something else: all is late, and as much arrives as is sent.
#[test]
fn a_viewer_that_is_always_late_has_no_slow_link() {
    let mut viewer = Viewer::new(1e6, FAST);
    viewer.run(10.0);
    (viewer.weather.delay, viewer.weather.jitter) = (130 * MS, 40 * MS);
    viewer.run(20.0);
    assert!(viewer.mbit().is_none_or(|mbit| mbit > 1.0), "{:?}", viewer.mbit());
}

#[test]
fn loss_without_a_queue_is_a_limit_too() {
    let mut viewer = Viewer::new(3e6, FAST);
    viewer.run(5.0);
    viewer.weather.lost = 500;
    viewer.run(2.0);
    check(&viewer, 0.5..1.8);
    let mut viewer = Viewer::new(3e6, FAST);
    viewer.run(5.0);
    viewer.weather.lost = 150;
    viewer.run(1.5);
    check(&viewer, 1.5..2.9);
}

#[test]
fn what_is_not_sent_is_not_believed() {
    let mut viewer = Viewer::new(3e6, Weather { rate: 1e6, ..FAST });
    viewer.run(3.0);
    viewer.pictures = 400e3;
    viewer.weather.rate = 50e6;
    viewer.run(60.0);
    check(&viewer, 0.6..1.0);
}

#[test]
fn a_probe_finds_that_a_link_has_recovered() {
    let mut viewer = Viewer::new(3e6, Weather { rate: 1e6, ..FAST });
    viewer.run(3.0);
    viewer.pictures = 600e3;
    viewer.bandwidth.aim(Some(3_600_000));
    viewer.run(30.0);
    check(&viewer, 0.7..1.1);
    assert!((2..=6).contains(&viewer.bandwidth.probes), "{} probes", viewer.bandwidth.probes);
    assert_eq!(viewer.bandwidth.probes, viewer.bandwidth.probes_refused);
    viewer.weather.rate = 50e6;
    viewer.run(17.0);
    check(&viewer, 3.6..4.5);
    let padded = viewer.padded;
    viewer.run(60.0);
    assert_eq!(viewer.padded, padded, "what is known is not tried again");
    check(&viewer, 3.6..4.5);
}

#[test]
fn a_probe_costs_little() {
    let mut viewer = Viewer::new(3e6, Weather { rate: 1e6, ..FAST });
    viewer.run(3.0);
    viewer.pictures = 400e3;
    viewer.bandwidth.aim(Some(3_600_000));
    viewer.run(300.0);
    let share = viewer.padded as f64 * 8.0 / 300.0 / 1e6;
    assert!(share < 0.06, "{share} of the link");
    assert!(viewer.bandwidth.probes < 30, "{} probes", viewer.bandwidth.probes);
}

/// What a probe's queue holds up, a viewer sees.
#[test]
fn a_probe_that_fails_makes_no_long_queue() {
    for rate in [1e6, 1.5e6, 2e6, 3e6] {
        let mut viewer = Viewer::new(4e6, Weather { rate, ..FAST });
        viewer.run(3.0);
        viewer.pictures = rate * 0.3;
        viewer.run(10.0);
        viewer.queue_max = Duration::ZERO;
        viewer.run(60.0);
        let without = std::mem::take(&mut viewer.queue_max);
        viewer.bandwidth.aim(Some((rate * 2.0) as u64));
        viewer.run(60.0);
        assert!(viewer.bandwidth.probes_refused > 2, "{rate} bit/s");
        assert!(viewer.queue_max < without + 80 * MS, "{rate} bit/s: {without:?}, and with probes {:?}", viewer.queue_max);
    }
}

#[test]
fn what_a_shaper_has_saved_up_is_no_rate() {
    let shaped = Weather { rate: 1.5e6, store: 150 * MS, ..FAST };
    let mut viewer = Viewer::new(4e6, shaped);
    viewer.run(3.0);
    viewer.pictures = 700e3;
    viewer.bandwidth.aim(Some(3_600_000));
    viewer.run(120.0);
    check(&viewer, 1.0..2.0);
}

#[test]
fn a_longer_way_is_learnt() {
    let mut viewer = Viewer::new(800e3, FAST);
    viewer.run(10.0);
    viewer.weather.delay = 250 * MS;
    viewer.run(30.0);
    let after = viewer.known;
    viewer.run(60.0);
    assert!(viewer.known >= after, "it is the way, no queue: {after:?} {:?}", viewer.known);
}

/// Seconds in which so much is sent, and so much of 256 is told to be lost. Gives the rates that are told, in kbit/s.
fn report(bandwidth: &mut Bandwidth, now: &mut Instant, count: u32, rate: usize, fraction_lost: u8) -> Vec<u64> {
    let mut told = Vec::new();
    for _ in 0..count {
        *now += Duration::from_secs(1);
        bandwidth.sent(*now, rate / 8);
        let (ssrc, total_lost, highest_sequence, jitter) = (1, 0, 0, 0);
        let reception = Reception { ssrc, fraction_lost, total_lost, highest_sequence, jitter, last_sender_report: 0, delay: 0 };
        bandwidth.handle_reception(*now, &reception);
        told.extend(bandwidth.poll_bitrate(*now).map(|bitrate| bitrate / 1000));
    }
    told
}

#[test]
fn without_transport_wide_feedback_a_step_up_takes_ten_seconds() {
    const NOTHING: [u64; 0] = [];
    let mut now = Instant::now();
    let mut bandwidth = Bandwidth::new(now, false);
    assert!(bandwidth.numbers().is_none());
    let mut seconds = |bandwidth: &mut Bandwidth, count, rate, lost| report(bandwidth, &mut now, count, rate, lost);
    assert_eq!(seconds(&mut bandwidth, 60, 3_000_000, 2), NOTHING, "nothing is lost");
    assert_eq!(seconds(&mut bandwidth, 2, 3_000_000, 128), [2250, 1687]);
    bandwidth.aim(Some(1_800_000));
    assert_eq!(seconds(&mut bandwidth, 9, 800_000, 2), NOTHING);
    assert_eq!(seconds(&mut bandwidth, 2, 800_000, 2), [1800]);
    bandwidth.aim(Some(3_600_000));
    assert_eq!(seconds(&mut bandwidth, 8, 1_500_000, 2), NOTHING);
    assert_eq!(seconds(&mut bandwidth, 3, 1_500_000, 2), [3600]);
}

/// Some clients accept the extension and send none of its feedback.
#[test]
fn feedback_that_was_promised_and_does_not_come_is_done_without() {
    let mut now = Instant::now();
    let mut bandwidth = Bandwidth::new(now, true);
    assert!(report(&mut bandwidth, &mut now, 5, 3_000_000, 128).is_empty(), "it may still come");
    assert_eq!(report(&mut bandwidth, &mut now, 2, 3_000_000, 128), [2250, 1687]);
    bandwidth.aim(Some(1_800_000));
    assert_eq!((bandwidth.poll_bytes(now), bandwidth.probes), (0, 0), "nobody would tell what came of a probe");
    // It comes all the same, and goes before.
    let number = bandwidth.numbers().unwrap().take(now, 1200);
    bandwidth.handle_feedback(now + 50 * MS, &TransportFeedback { base: number as u16, arrivals: vec![Some(1000)] });
    assert!(report(&mut bandwidth, &mut now, 20, 3_000_000, 128).is_empty());
}
