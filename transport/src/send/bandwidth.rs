//! What one viewer's link carries: measured by what the viewer tells, and told to whoever chooses its picture.
//!
//! With transport-wide feedback by `estimate` and `probe`; without it, whether it was promised or not, by the loss of receiver
//! reports alone, which says too little to go up by more than a careful step. Pure.

use std::time::{Duration, Instant};

use super::{
    estimate::Estimator,
    numbers::{Numbers, Outcome, duration},
    pace::Pacer,
    probe::{Prober, Shown},
};
use crate::rtp::{TransportFeedback, rtcp::Reception};

/// Between two words about a rate that has not fallen.
const TELL_INTERVAL: Duration = Duration::from_millis(500);
/// What is worth a word: less changes no choice.
const CHANGE: f64 = 0.03;
/// Feedback that was promised and has not come by then does not come.
const FEEDBACK_WAIT: Duration = Duration::from_secs(5);
/// Without transport-wide feedback: from loss, or a step up, to the next step up.
const STEP_WAIT: Duration = Duration::from_secs(10);
/// Loss in 1/256: above the first the rate falls, above the second it does not rise.
const LOSS_HIGH: u8 = 26;
const LOSS_LOW: u8 = 5;
const BITRATE_MIN: f64 = 50_000.0;

pub struct Bandwidth {
    /// Where transport-wide feedback was promised.
    by_arrival: Option<Box<(Numbers, Estimator)>>,
    /// And it came.
    heard: bool,
    /// Until it does.
    losses: Losses,
    /// When something was sent first.
    began: Option<Instant>,
    prober: Prober,
    pacer: Pacer,
    told: Option<(u64, Instant)>,
    /// One portion of outcomes after the other.
    outcomes: Vec<Outcome>,
    pub probes: u64,
    pub probes_refused: u64,
}

/// What receiver reports tell.
struct Losses {
    estimate: Option<f64>,
    aim: Option<u64>,
    /// No sooner does it rise.
    not_before: Option<Instant>,
    sent: u64,
    since: Instant,
    /// Bits a second in the last span.
    rate: Option<f64>,
}

impl Bandwidth {
    pub fn new(now: Instant, is_numbered: bool) -> Self {
        let by_arrival = is_numbered.then(|| Box::new((Numbers::new(now), Estimator::default())));
        let losses = Losses { estimate: None, aim: None, not_before: None, sent: 0, since: now, rate: None };
        Self {
            by_arrival,
            heard: false,
            losses,
            began: None,
            prober: Prober::new(),
            pacer: Pacer::default(),
            told: None,
            outcomes: Vec::new(),
            probes: 0,
            probes_refused: 0,
        }
    }

    /// `None`: packets have no transport-wide numbers.
    pub fn numbers(&mut self) -> Option<&mut Numbers> {
        self.by_arrival.as_mut().map(|measure| &mut measure.0)
    }

    /// What packets are numbered by, as `numbers`, and what says when they may leave.
    pub(crate) fn way(&mut self, now: Instant) -> (Option<&mut Numbers>, &mut Pacer) {
        let bitrate = self.bitrate();
        self.pacer.set(now, bitrate);
        (self.by_arrival.as_mut().map(|measure| &mut measure.0), &mut self.pacer)
    }

    /// Bits a second that a better picture would need. `None`: there is none.
    pub fn aim(&mut self, bitrate: Option<u64>) {
        self.prober.aim(bitrate);
        self.losses.aim = bitrate;
    }

    /// Bytes have left.
    pub fn sent(&mut self, now: Instant, bytes: usize) {
        self.prober.sent(bytes as u64);
        if !self.heard && bytes > 0 {
            self.began.get_or_insert(now);
            self.losses.sent(now, bytes as u64);
        }
    }

    /// Bytes that are due beside what is sent anyway: a probe's.
    pub fn poll_bytes(&mut self, now: Instant) -> u64 {
        let Some(measure) = self.by_arrival.as_mut().filter(|_| self.heard) else { return 0 };
        let (numbers, estimator) = &mut **measure;
        self.probes += u64::from(self.prober.start(now, estimator.bitrate()));
        let shown = self.prober.conclude(now);
        let bytes = self.prober.poll_bytes(now);
        numbers.set_probing(self.prober.is_running());
        self.learn(shown);
        bytes
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.prober.poll_timeout()
    }

    pub fn handle_feedback(&mut self, now: Instant, feedback: &TransportFeedback) {
        let Some(measure) = &mut self.by_arrival else { return };
        self.heard = true;
        let (numbers, estimator) = &mut **measure;
        self.outcomes.clear();
        numbers.outcomes(now, feedback, &mut self.outcomes);
        let before = estimator.bitrate();
        estimator.handle(now, numbers.ticks(now), &self.outcomes);
        let known = estimator.bitrate();
        if known.is_some_and(|known| before.is_none_or(|before| known < before)) {
            self.pacer.set(now, known);
            self.pacer.hold(now, duration(estimator.queue()));
        }
        if !estimator.is_calm(now, Duration::from_millis(1)) {
            self.prober.put_off(now);
        }
        let shown = self.prober.handle(now, &self.outcomes, estimator.queue());
        numbers.set_probing(self.prober.is_running());
        self.learn(shown);
    }

    pub fn handle_reception(&mut self, now: Instant, reception: &Reception) {
        let is_awaited = self.by_arrival.is_some() && self.began.is_none_or(|began| now < began + FEEDBACK_WAIT);
        if !self.heard && !is_awaited {
            self.losses.handle(now, reception.fraction_lost);
        }
    }

    /// The rate that fits, where it has changed; a fall at once.
    pub fn poll_bitrate(&mut self, now: Instant) -> Option<u64> {
        let bitrate = self.bitrate()?;
        let is_news = self.told.is_none_or(|(told, at)| {
            let change = (bitrate as f64 - told as f64) / told.max(1) as f64;
            change < -CHANGE || change > CHANGE && now >= at + TELL_INTERVAL
        });
        is_news.then(|| {
            self.told = Some((bitrate, now));
            bitrate
        })
    }

    fn bitrate(&self) -> Option<u64> {
        match &self.by_arrival {
            Some(measure) if self.heard => measure.1.bitrate(),
            _ => self.losses.estimate.map(|bits| bits as u64),
        }
    }

    fn learn(&mut self, shown: Option<Shown>) {
        let Some(measure) = &mut self.by_arrival else { return };
        match shown {
            Some(Shown::Enough(bitrate)) => measure.1.prove(bitrate),
            Some(Shown::Less(bitrate)) => {
                self.probes_refused += 1;
                // It came all the same.
                measure.1.prove(bitrate);
            }
            Some(Shown::Refused) => self.probes_refused += 1,
            None => {}
        }
    }
}

impl Losses {
    fn sent(&mut self, now: Instant, bytes: u64) {
        self.sent += bytes;
        let span = now.saturating_duration_since(self.since);
        if span >= Duration::from_secs(1) {
            self.rate = Some(self.sent as f64 * 8.0 / span.as_secs_f64());
            (self.sent, self.since) = (0, now);
        }
    }

    fn handle(&mut self, now: Instant, fraction_lost: u8) {
        let Some(rate) = self.rate else { return };
        if fraction_lost > LOSS_HIGH {
            let left = 1.0 - f64::from(fraction_lost) / 512.0;
            let base = self.estimate.map_or(rate, |estimate| estimate.min(rate));
            self.estimate = Some((left * base).max(BITRATE_MIN));
            self.not_before = Some(now + STEP_WAIT);
        } else if fraction_lost <= LOSS_LOW && self.not_before.is_some_and(|at| now >= at) {
            // Nothing but trying shows whether it fits.
            let wanted = self.aim.map(|aim| aim as f64).zip(self.estimate).filter(|(aim, estimate)| aim > estimate);
            if let Some((aim, _)) = wanted {
                self.estimate = Some(aim);
                self.not_before = Some(now + STEP_WAIT);
            }
        }
    }
}
