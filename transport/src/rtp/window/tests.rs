//! Packets as they come, packets as they go, and when.

use super::*;

const MS: Duration = Duration::from_millis(1);

struct Bench {
    window: Window,
    start: Instant,
    now: Instant,
    out: Vec<(u32, bool)>,
}

impl Bench {
    fn new() -> Self {
        let start = Instant::now();
        Self { window: Window::new(100 * MS), start, now: start, out: Vec::new() }
    }

    fn packet(&self, number: u16, bytes: usize) -> Packet {
        Packet {
            timestamp: u32::from(number),
            marker: false,
            payload: Bytes::from(vec![0; bytes]),
            received: self.now,
            gap: false,
        }
    }

    fn handle(&mut self, number: u16) -> &mut Self {
        self.window.handle_packet(number, false, self.packet(number, 10));
        self.drain()
    }

    fn handle_rtx(&mut self, number: u16) -> &mut Self {
        self.window.handle_packet(number, true, self.packet(number, 10));
        self.drain()
    }

    fn drain(&mut self) -> &mut Self {
        self.out.extend(std::iter::from_fn(|| self.window.poll_packet()).map(|packet| (packet.timestamp, packet.gap)));
        assert!(self.window.is_within_bounds());
        self
    }

    /// To this many milliseconds after the start.
    fn at(&mut self, ms: u32) -> &mut Self {
        self.now = self.start + ms * MS;
        self.window.handle_timeout(self.now);
        self.drain()
    }

    /// What came out since the last question; a hole is a bar.
    fn out(&mut self) -> String {
        let words = self.out.drain(..).map(|(number, gap)| format!("{}{number}", if gap { "|" } else { "" }));
        words.collect::<Vec<_>>().join(" ")
    }

    fn nack(&mut self) -> Vec<u16> {
        self.window.poll_nack(self.now).unwrap_or_default()
    }

    fn due_ms(&self) -> Option<u128> {
        self.window.poll_timeout().map(|at| at.saturating_duration_since(self.start).as_millis())
    }
}

#[test]
fn packets_in_order_pass_at_once() {
    let mut bench = Bench::new();
    bench.handle(65_534).handle(65_535).handle(0).handle(1);
    assert_eq!(bench.out(), "65534 65535 0 1");
    assert_eq!(bench.due_ms(), None);
    assert_eq!(bench.window.counters(), Counters::default());
}

#[test]
fn overtaken_packets_are_put_in_order_and_not_asked_for() {
    let mut bench = Bench::new();
    bench.handle(10).handle(12);
    assert_eq!(bench.out(), "10");
    assert_eq!(bench.nack(), [0_u16; 0]);
    assert_eq!(bench.due_ms(), Some(5));
    bench.at(4).handle(11);
    assert_eq!(bench.out(), "11 12");
    assert_eq!((bench.due_ms(), bench.window.counters()), (None, Counters::default()));
}

#[test]
fn a_missing_packet_is_asked_for_and_its_followers_wait() {
    // By time.
    let mut bench = Bench::new();
    bench.handle(10).handle(12).at(5);
    assert_eq!(bench.nack(), [11]);
    assert_eq!(bench.nack(), [0_u16; 0]);
    assert_eq!(bench.due_ms(), Some(30), "again after 25 ms");
    bench.at(30);
    assert_eq!(bench.nack(), [11]);
    bench.at(40).handle_rtx(11);
    assert_eq!(bench.out(), "10 11 12");
    assert_eq!(bench.window.counters(), Counters { recovered: 1, nacks: 2, ..Counters::default() });
    // By packets.
    let mut bench = Bench::new();
    bench.handle(10).handle(13).handle(14);
    assert_eq!(bench.nack(), [11, 12]);
    bench.handle(11);
    assert_eq!(bench.out(), "10 11");
    bench.handle_rtx(12);
    assert_eq!(bench.out(), "12 13 14");
    // Over the wrap.
    let mut bench = Bench::new();
    bench.handle(65_533).handle(1).handle(2);
    assert_eq!(bench.nack(), [65_534, 65_535, 0]);
}

#[test]
fn a_hole_is_given_up_in_time_and_leaves_no_delay() {
    let mut bench = Bench::new();
    bench.handle(10).handle(12).at(50).handle(14);
    assert_eq!(bench.out(), "10");
    bench.at(99);
    assert_eq!(bench.out(), "");
    bench.at(100);
    assert_eq!(bench.out(), "|12", "13 has time until 150");
    bench.nack();
    bench.handle(15).at(150);
    assert_eq!(bench.out(), "|14 15");
    bench.handle(16);
    assert_eq!(bench.out(), "16", "nothing stays");
    assert_eq!(bench.due_ms(), None);
    bench.handle_rtx(13).handle_rtx(13).handle(16);
    assert_eq!(bench.out(), "");
    let counters = bench.window.counters();
    assert_eq!((counters.lost, counters.late, counters.duplicate), (2, 1, 2));
}

#[test]
fn requests_and_patience_follow_the_round_trip() {
    for (rtt, repeat_ms, wait_ms) in [(0, 25, 30), (10, 25, 50), (60, 60, 150), (100, 100, 230), (400, 400, 250)] {
        let mut bench = Bench::new();
        bench.window.rtt = Some(rtt * MS);
        bench.handle(1).handle(3).handle(4);
        assert_eq!(bench.nack(), [2]);
        assert_eq!(bench.due_ms(), Some(repeat_ms.min(wait_ms)), "{rtt}");
        bench.at(wait_ms as u32 - 1);
        assert_eq!(bench.out(), "1");
        bench.at(wait_ms as u32);
        assert_eq!(bench.out(), "|3 4", "{rtt}");
    }
    // It is learnt from an answer, even from one that came too late.
    for answer in [60, 120] {
        let mut bench = Bench::new();
        bench.handle(1).handle(3).handle(4);
        bench.nack();
        bench.at(answer).handle_rtx(2).handle(6).handle(7);
        let wait = (2 * answer + 30).min(250);
        bench.nack();
        bench.out();
        bench.at(answer + wait - 1);
        assert_eq!(bench.out(), "");
        bench.at(answer + wait);
        assert_eq!(bench.out(), "|6 7");
    }
}

#[test]
fn nobody_is_asked_for_ever() {
    let mut bench = Bench::new();
    bench.window.first_wait = WAIT_MAX;
    bench.handle(1).handle(3).handle(4);
    let requests = (0..250).filter(|ms| !bench.at(*ms).nack().is_empty()).count();
    assert_eq!(requests, 10, "all that fit into the wait");
    assert_eq!(bench.at(250).due_ms(), None);
}

#[test]
fn a_large_hole_is_an_outage() {
    let mut bench = Bench::new();
    bench.handle(1).handle(202);
    assert_eq!(bench.out(), "1");
    bench.at(5);
    assert_eq!(bench.nack().len(), 200);
    let mut bench = Bench::new();
    bench.handle(1).handle(203);
    assert_eq!(bench.out(), "1 |203");
    assert_eq!((bench.due_ms(), bench.window.counters().lost), (None, 201));
    // Several small ones count together.
    let mut bench = Bench::new();
    bench.handle(1).handle(103).handle(204);
    assert_eq!(bench.out(), "1 |103 |204");
}

#[test]
fn a_jump_is_another_beginning() {
    for next in [5001_u16, 30_000, 62_000, 40_000] {
        let mut bench = Bench::new();
        bench.handle(1000).handle(1002).handle(next).handle(next.wrapping_add(1));
        assert_eq!(bench.out(), format!("1000 |1002 |{next} {}", next.wrapping_add(1)), "{next}");
        assert_eq!(bench.due_ms(), None);
    }
    let mut bench = Bench::new();
    bench.handle_rtx(7).handle(1000).handle_rtx(9000).handle(1001);
    assert_eq!(bench.out(), "1000 1001", "a retransmission begins nothing");
    bench.window.restart();
    bench.handle(1001);
    assert_eq!(bench.out(), "|1001", "another source may have any number");
}

#[test]
fn a_sender_without_pauses_cannot_make_it_grow() {
    let mut bench = Bench::new();
    bench.handle(0);
    for number in 2..=2 + PACKETS_MAX as u16 {
        bench.handle(number);
    }
    assert!(bench.out().starts_with("0 |2 3"), "packets");
    let mut bench = Bench::new();
    bench.handle(0);
    for number in 2..100 {
        let packet = bench.packet(number, 60_000);
        bench.window.handle_packet(number, false, packet);
        bench.drain();
    }
    assert!(bench.out().starts_with("0 |2 3"), "bytes");
    let mut bench = Bench::new();
    bench.handle(0);
    for number in (2..6000).step_by(2) {
        bench.handle(number);
    }
    assert!(bench.window.missing.len() <= MISSING_MAX, "holes");
}
