//! How many bits a second one viewer's link carries, as far as what it is sent tells.
//!
//! ```text
//! outcomes of packets --> delay behind the least --> trend, standing queue --\
//!                    \--> lost of those sent ---------------------------------> congested? --> less: a share of what arrived
//!                     \-> arrived in the last moments ------------------------/         \----> more: a little each second
//! ```
//!
//! In the manner of Google's congestion control (draft-ietf-rmcat-gcc-02): the trend of the delay against a threshold that
//! adapts, loss, and a rate that grows slowly and falls at once. Frames leave in one burst here, so the delay is that of each
//! burst's first packet, which tells of the queue before it; and a queue counts only where it stands, so that a keyframe that
//! drains is no congestion. What is not sent cannot be measured: beyond that, `probe` measures. Pure: virtual time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::numbers::{Outcome, ticks};

/// Packets that leave within so many ticks are one burst.
const BURST: i64 = ticks(Duration::from_millis(5));
/// What arrived is counted over this where the link is full, and over the long one where it may not be.
const RATE_SHORT: i64 = ticks(Duration::from_millis(300));
const RATE_LONG: i64 = ticks(Duration::from_secs(1));
/// They are kept for so long, so that the long one is known to be covered.
const ARRIVALS_KEPT: i64 = RATE_LONG + RATE_SHORT;
/// And so many: that time at 20 Mbit/s.
const ARRIVALS_MAX: usize = 2560;
/// A queue that was never shorter for so long stands; where much is lost as well, this is long enough.
const STANDING: i64 = ticks(Duration::from_millis(250));
const STANDING_LOSSY: i64 = ticks(Duration::from_millis(80));
/// And it is the way's where it grows by so much from one span of this length to a later one, or where something is lost, or
/// where it is as long as this. Else what is sent arrives as fast: a busy machine's queue, or that of others.
const STANDING_SPAN: i64 = ticks(Duration::from_millis(100));
const GROWN: i64 = ticks(Duration::from_millis(10));
const QUEUE_LONG: i64 = ticks(Duration::from_millis(400));
/// And then is congestion: twice what a picture of the common rates takes to leave.
const QUEUE_MAX: i64 = ticks(Duration::from_millis(70));
/// Between two bursts the way was busy where the later one waited for so long.
const BUSY_QUEUE: i64 = ticks(Duration::from_millis(20));
/// It has become slower where since then the queue grew in two leaps of this at least, of which none is most of it, ...
const LEAP: i64 = ticks(Duration::from_millis(15));
const LEAP_SHARE: f64 = 0.7;
/// ... over so long a time of sending, ...
const BUSY_SPAN: i64 = ticks(Duration::from_millis(45));
/// ... nothing was waited for as long as this, and longer than some packets take at that rate, ...
const GAP: i64 = ticks(Duration::from_millis(30));
const GAP_BITS: f64 = 3.0 * 1300.0 * 8.0;
/// ... and what came meanwhile is less than this share of what came before.
const FALLEN: f64 = 0.7;
/// The least delay is looked for in two spans of this length: clocks drift less than a tick in them, and a route that became
/// longer is learnt.
const BASE_SPAN: Duration = Duration::from_secs(6);
/// Bursts of the trend line (GCC 5.3: 20).
const TREND_BURSTS: usize = 20;
/// Of the adaptive threshold (GCC 5.4), in milliseconds and per millisecond.
const THRESHOLD: f64 = 12.5;
const THRESHOLD_RANGE: (f64, f64) = (6.0, 600.0);
const GAIN: f64 = 4.0;
const DELTAS_MAX: f64 = 60.0;
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
/// A trend that lasts so long is one, where it has made a queue of that length: less is how radio links are.
const OVERUSE: i64 = ticks(Duration::from_millis(100));
const OVERUSE_QUEUE: i64 = ticks(Duration::from_millis(30));
/// Loss is looked at when so many packets and this time have passed.
const LOSS_PACKETS: u32 = 20;
const LOSS_SPAN: Duration = Duration::from_millis(300);
/// Of one message, so many are much.
const LOSSY_PACKETS: usize = 6;
/// Below the first the rate may grow; above the second it falls (GCC 6); above the third only what arrived counts.
const LOSS_LOW: f64 = 0.02;
const LOSS_HIGH: f64 = 0.10;
const LOSS_FULL: f64 = 0.25;
/// What is left of the rate that arrived (GCC 5.5).
const BETA: f64 = 0.85;
/// Between two steps down: the first is felt by then.
const STEP_WAIT: Duration = Duration::from_millis(300);
/// After congestion the rate stands still for so long.
const CALM: Duration = Duration::from_secs(1);
/// Growth in a second, and near the rate at which there was congestion: bits in a second.
const GROWTH: f64 = 0.08;
const GROWTH_NEAR: f64 = 25_000.0;
/// That rate is near from this share on up to that one.
const NEAR: (f64, f64) = (0.85, 1.2);
/// Beyond this much of what arrives nothing is known.
const UNPROVED: f64 = 1.5;
const BITRATE_MIN: f64 = 50_000.0;

#[derive(Default)]
pub(crate) struct Estimator {
    /// Bits a second. `None`: no limit was met.
    estimate: Option<f64>,
    /// What arrived when the link was full last.
    full_at: Option<f64>,
    /// In the order in which they arrived: when, bytes.
    arrivals: VecDeque<(i64, u32)>,
    base: Base,
    /// When the newest packet of the newest burst was sent.
    burst: Option<i64>,
    /// Of the newest burst: when it arrived, and how long its queue was.
    newest: (i64, i64),
    /// Since when every queue was long.
    standing: Option<Standing>,
    /// Since when the way had no pause.
    busy: Option<Busy>,
    /// What it carries, in bits a second, where that is so much less than before that nothing has to be waited for.
    fallen: Option<f64>,
    trend: Trend,
    loss: Loss,
    congested: Option<Instant>,
    /// The newest step down, and what was sent before it: no reason for another one.
    stepped: Option<Instant>,
    stepped_sent: Option<i64>,
    updated: Option<Instant>,
}

/// A queue that stands.
#[derive(Clone, Copy)]
struct Standing {
    /// When the first burst arrived that waited so long.
    since: i64,
    /// The least in the first span, in the one under way, and how much more it was in the last one.
    first: Option<i64>,
    span_since: i64,
    span_least: i64,
    grown: i64,
}

/// A time in which the way always had something to carry: what came is what it carries.
struct Busy {
    /// Of the burst that began it.
    sent: i64,
    arrived: i64,
    /// Since then; and the longest time in which nothing came, up to the newest packet.
    bytes: u64,
    gap: i64,
    newest: i64,
    /// The longest queue, by how many leaps it came to that, and the largest of those.
    longest: i64,
    leaps: u32,
    leap: i64,
}

/// The least delay of the last seconds: what the way takes without a queue.
#[derive(Default)]
struct Base {
    since: Option<Instant>,
    now: Option<i64>,
    before: Option<i64>,
}

#[derive(Default)]
struct Loss {
    since: Option<Instant>,
    packets: u32,
    lost: u32,
    /// Of the last span.
    share: f64,
}

/// How far the link is from its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Clear,
    /// There is a queue, which may be none of the way's: no time to go up.
    Unclear,
    /// The delay grows: little is known yet, since what is sent may be less than the link carries.
    Growing,
    /// More is lost than a good link loses: so much is left of the rate.
    Lossy(f64),
    /// There is a queue that does not drain, or most is lost: what arrives is what the link carries.
    Full,
    /// The link has become slower a moment ago: so many bits a second.
    Fallen(f64),
}

impl Estimator {
    pub(crate) fn bitrate(&self) -> Option<u64> {
        self.estimate.map(|bits| bits as u64)
    }

    /// Ticks by which the newest burst was later than the way takes.
    pub(crate) fn queue(&self) -> i64 {
        self.newest.1
    }

    /// Whether there was no congestion for so long.
    pub(crate) fn is_calm(&self, now: Instant, wait: Duration) -> bool {
        self.congested.is_none_or(|at| now >= at + wait)
    }

    /// What one message tells. `now_ticks` is that moment as they count.
    pub(crate) fn handle(&mut self, now: Instant, now_ticks: i64, outcomes: &[Outcome]) {
        let of_now = outcomes.iter().filter(|outcome| !self.is_of_before(outcome.sent));
        let (lost, all) = of_now.fold((0, 0), |(lost, all), outcome| (lost + usize::from(outcome.arrived.is_none()), all + 1));
        let is_lossy = lost >= LOSSY_PACKETS && lost as f64 >= LOSS_FULL * f64::from(all);
        for outcome in outcomes {
            if !self.is_of_before(outcome.sent) {
                self.loss.observe(now, outcome.arrived.is_some());
            }
            if let Some(arrived) = outcome.arrived {
                self.arrive(now, outcome, arrived);
            }
        }
        let verdict = self.judge(is_lossy);
        let since = self.updated.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if verdict == Verdict::Clear {
            self.grow(now, since.min(CALM));
        } else {
            self.congested = Some(now);
            if self.shrink(now, verdict) {
                self.stepped_sent = Some(now_ticks);
                (self.standing, self.busy, self.loss) = (None, None, Loss::default());
            }
        }
    }

    /// A probe arrived at this rate.
    pub(crate) fn prove(&mut self, bitrate: f64) {
        if self.estimate.is_some_and(|estimate| bitrate > estimate) {
            self.estimate = Some(bitrate);
            self.full_at = self.full_at.filter(|full| *full > bitrate);
        }
    }

    fn arrive(&mut self, now: Instant, outcome: &Outcome, arrived: i64) {
        if self.arrivals.len() == ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back((arrived, outcome.bytes));
        while self.arrivals.front().is_some_and(|(at, _)| *at < arrived.saturating_sub(ARRIVALS_KEPT)) {
            self.arrivals.pop_front();
        }
        match &mut self.burst {
            Some(newest) if outcome.sent <= *newest + BURST => *newest = outcome.sent.max(*newest),
            _ => {
                self.burst = Some(outcome.sent);
                self.begin_burst(now, outcome.sent, arrived);
            }
        }
        if let Some(busy) = &mut self.busy {
            busy.take(arrived, outcome.bytes);
        }
    }

    fn begin_burst(&mut self, now: Instant, sent: i64, arrived: i64) {
        // A viewer may tell any time.
        let delay = arrived.saturating_sub(sent);
        let queue = delay.saturating_sub(self.base.observe(now, delay)).max(0);
        self.newest = (arrived, queue);
        self.trend.observe(arrived, delay);
        if self.is_of_before(sent) {
            return;
        }
        let standing = self.standing.take().filter(|_| queue > QUEUE_MAX);
        self.standing = (queue > QUEUE_MAX).then(|| standing.unwrap_or(Standing::new(arrived, queue)).observe(arrived, queue));
        let busy = self.busy.take().filter(|_| queue > BUSY_QUEUE);
        let busy = self.busy.insert(busy.unwrap_or(Busy::new(sent, arrived, queue)));
        busy.wait(arrived);
        if let Some(carries) = busy.observe(sent, arrived, queue)
            && self.arrived(RATE_LONG).is_some_and(|before| carries < FALLEN * before)
        {
            self.fallen = Some(carries);
        }
    }

    fn is_of_before(&self, sent: i64) -> bool {
        self.stepped_sent.is_some_and(|stepped| sent < stepped)
    }

    fn judge(&mut self, is_lossy: bool) -> Verdict {
        if let Some(carries) = self.fallen.take() {
            return Verdict::Fallen(carries);
        }
        let stands = self.stood() >= STANDING;
        let grows = self.standing.is_some_and(|standing| standing.grown >= GROWN);
        let is_ours = grows || self.loss.share > LOSS_LOW || self.queue() > QUEUE_LONG;
        let is_full = stands && is_ours || is_lossy && self.stood() >= STANDING_LOSSY;
        if is_full || self.loss.share >= LOSS_FULL {
            return Verdict::Full;
        }
        if self.loss.share > LOSS_HIGH {
            return Verdict::Lossy(1.0 - self.loss.share / 2.0);
        }
        if self.trend.is_overuse() && self.queue() > OVERUSE_QUEUE {
            return Verdict::Growing;
        }
        if stands { Verdict::Unclear } else { Verdict::Clear }
    }

    /// For how long the queue has stood.
    fn stood(&self) -> i64 {
        self.standing.map_or(0, |standing| self.newest.0.saturating_sub(standing.since))
    }

    /// False where nothing was done.
    fn shrink(&mut self, now: Instant, verdict: Verdict) -> bool {
        let is_soon = self.stepped.is_some_and(|at| now < at + STEP_WAIT);
        if is_soon || verdict == Verdict::Unclear {
            return false;
        }
        self.stepped = Some(now);
        // What came before the queue tells of another time.
        let span = match self.stood() {
            0 => RATE_SHORT,
            stood => stood.clamp(STANDING_LOSSY, RATE_SHORT),
        };
        let arrived = match verdict {
            Verdict::Fallen(carries) => Some(carries),
            Verdict::Full => self.arrived(span),
            _ => self.arrived(RATE_LONG),
        };
        let Some(arrived) = arrived else { return false };
        let target = match verdict {
            Verdict::Clear | Verdict::Unclear => return false,
            Verdict::Full | Verdict::Fallen(_) => BETA * arrived,
            Verdict::Growing => self.estimate.map_or(UNPROVED * arrived, |estimate| BETA * estimate.max(arrived)),
            Verdict::Lossy(left) => self.estimate.map_or(arrived, |estimate| left * estimate.max(arrived)),
        };
        if matches!(verdict, Verdict::Full | Verdict::Fallen(_)) {
            self.full_at = Some(arrived);
        }
        self.estimate = Some(self.estimate.map_or(target, |estimate| estimate.min(target)).max(BITRATE_MIN));
        true
    }

    fn grow(&mut self, now: Instant, since: Duration) {
        if self.loss.share > LOSS_LOW || !self.is_calm(now, CALM) {
            return;
        }
        let (Some(arrived), Some(estimate)) = (self.arrived(RATE_LONG), self.estimate) else { return };
        let near = self.full_at.is_some_and(|full| (NEAR.0 * full..NEAR.1 * full).contains(&estimate));
        let growth = if near { GROWTH_NEAR } else { GROWTH * estimate };
        let grown = estimate + growth * since.as_secs_f64();
        // What arrives fits, and somewhat more may.
        self.estimate = Some(grown.min(UNPROVED * arrived).max(arrived).max(estimate));
    }

    /// Bits a second that arrived in the last so many ticks.
    fn arrived(&self, span: i64) -> Option<f64> {
        let &(newest, _) = self.arrivals.back()?;
        let &(oldest, _) = self.arrivals.front()?;
        let recent = self.arrivals.iter().filter(|(at, _)| *at > newest.saturating_sub(span));
        let bytes: u64 = recent.map(|(_, bytes)| u64::from(*bytes)).sum();
        let covered = newest.saturating_sub(oldest).clamp(span / 2, span).max(1);
        Some(bytes as f64 * 8.0 * ticks(Duration::from_secs(1)) as f64 / covered as f64)
    }
}

impl Standing {
    fn new(arrived: i64, queue: i64) -> Self {
        Self { since: arrived, first: None, span_since: arrived, span_least: queue, grown: 0 }
    }

    fn observe(mut self, arrived: i64, queue: i64) -> Self {
        if arrived.saturating_sub(self.span_since) >= STANDING_SPAN {
            let first = *self.first.get_or_insert(self.span_least);
            self.grown = self.span_least.saturating_sub(first);
            (self.span_since, self.span_least) = (arrived, queue);
        }
        self.span_least = self.span_least.min(queue);
        self
    }
}

impl Busy {
    fn new(sent: i64, arrived: i64, queue: i64) -> Self {
        Self { sent, arrived, bytes: 0, gap: 0, newest: arrived, longest: queue, leaps: 0, leap: 0 }
    }

    fn wait(&mut self, arrived: i64) {
        self.gap = self.gap.max(arrived.saturating_sub(self.newest));
    }

    fn take(&mut self, arrived: i64, bytes: u32) {
        self.wait(arrived);
        self.newest = self.newest.max(arrived);
        self.bytes += u64::from(bytes);
    }

    /// What the way carries, in bits a second, where the newest burst waited the longest, and the queue grew like that of a way
    /// which has become slower: one that rested for a moment has a long queue at once, which drains, and nothing came meanwhile.
    fn observe(&mut self, sent: i64, arrived: i64, queue: i64) -> Option<f64> {
        let grown = queue.saturating_sub(self.longest);
        if grown < LEAP {
            return None;
        }
        self.longest = queue;
        self.leaps += 1;
        self.leap = self.leap.max(grown);
        let is_steady = self.leaps >= 2 && (self.leap as f64) < LEAP_SHARE * queue as f64;
        let is_long = queue > QUEUE_MAX && sent.saturating_sub(self.sent) >= BUSY_SPAN;
        let second = ticks(Duration::from_secs(1)) as f64;
        let span = arrived.saturating_sub(self.arrived).max(1) as f64 / second;
        let carries = self.bytes as f64 * 8.0 / span;
        let is_even = self.gap < GAP || (self.gap as f64) < GAP_BITS / carries.max(1.0) * second;
        (is_steady && is_long && is_even).then_some(carries)
    }
}

impl Base {
    /// The least delay known, with this one.
    fn observe(&mut self, now: Instant, delay: i64) -> i64 {
        if self.since.is_none_or(|since| now >= since + BASE_SPAN) {
            (self.since, self.before) = (Some(now), self.now.take());
        }
        let least = self.now.map_or(delay, |least| least.min(delay));
        self.now = Some(least);
        self.before.map_or(least, |before| before.min(least))
    }
}

impl Loss {
    fn observe(&mut self, now: Instant, arrived: bool) {
        let since = *self.since.get_or_insert(now);
        if self.packets >= LOSS_PACKETS && now >= since + LOSS_SPAN {
            self.share = f64::from(self.lost) / f64::from(self.packets);
            (self.since, self.packets, self.lost) = (Some(now), 0, 0);
        }
        self.packets += 1;
        self.lost += u32::from(!arrived);
    }
}

/// The slope of the delay over time (GCC 5.3), and the threshold that it is held against.
struct Trend {
    /// Arrival and smoothed delay, in milliseconds.
    line: VecDeque<(f64, f64)>,
    smoothed: f64,
    origin: Option<(i64, i64)>,
    deltas: f64,
    threshold: f64,
    /// Since when it is above that.
    over: Option<i64>,
    newest: i64,
    slope: f64,
    overuse: bool,
}

impl Default for Trend {
    fn default() -> Self {
        Self {
            line: VecDeque::new(),
            smoothed: 0.0,
            origin: None,
            deltas: 0.0,
            threshold: THRESHOLD,
            over: None,
            newest: 0,
            slope: 0.0,
            overuse: false,
        }
    }
}

impl Trend {
    fn is_overuse(&self) -> bool {
        self.overuse
    }

    fn observe(&mut self, arrived: i64, delay: i64) {
        let ms = |ticks: i64| ticks as f64 / ticks_a_ms();
        let (origin, first) = *self.origin.get_or_insert((arrived, delay));
        self.smoothed = 0.9 * self.smoothed + 0.1 * ms(delay.saturating_sub(first));
        self.deltas = (self.deltas + 1.0).min(DELTAS_MAX);
        if self.line.len() == TREND_BURSTS {
            self.line.pop_front();
        }
        self.line.push_back((ms(arrived.saturating_sub(origin)), self.smoothed));
        let since = ms(arrived.saturating_sub(self.newest)).clamp(0.0, 100.0);
        self.newest = self.newest.max(arrived);
        if self.line.len() == TREND_BURSTS {
            self.hold_against(arrived, since);
        }
    }

    fn hold_against(&mut self, arrived: i64, since_ms: f64) {
        let before = std::mem::replace(&mut self.slope, slope(&self.line));
        let modified = self.slope * self.deltas * GAIN;
        if modified <= self.threshold {
            (self.over, self.overuse) = (None, false);
        } else {
            let since = *self.over.get_or_insert(arrived);
            self.overuse = arrived.saturating_sub(since) >= OVERUSE && self.slope >= before;
        }
        // A sudden leap is no reason to become deaf (GCC 5.4).
        if modified.abs() <= self.threshold + 15.0 {
            let pace = if modified.abs() < self.threshold { THRESHOLD_DOWN } else { THRESHOLD_UP };
            let moved = self.threshold + pace * (modified.abs() - self.threshold) * since_ms;
            self.threshold = moved.clamp(THRESHOLD_RANGE.0, THRESHOLD_RANGE.1);
        }
    }
}

fn ticks_a_ms() -> f64 {
    ticks(Duration::from_millis(1)) as f64
}

/// Of the line of least squares.
fn slope(line: &VecDeque<(f64, f64)>) -> f64 {
    let count = line.len() as f64;
    let (sum_x, sum_y) = line.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (over, under) = line
        .iter()
        .fold((0.0, 0.0), |(over, under), (x, y)| (over + (x - mean_x) * (y - mean_y), under + (x - mean_x) * (x - mean_x)));
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests;
