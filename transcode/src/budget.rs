//! How much of the machine pictures may cost, over all streams, and who gets it.
//!
//! Sound costs little and is always made. Of pictures, what more viewers depend on for what it costs comes first: the one that
//! some cannot do without, then the cheapest rung. What is asked for and does not fit takes the place of what is worth less, or
//! is refused; nothing is slowed down for it, and the publisher's own picture is never touched.
//!
//! A cost is worked out from sizes and rates before anything is made, and corrected by what children were seen to need.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use media_core::{Rung, stream::Made};

/// Thousandths of a core for a million pixels a second, as x264 at `veryfast` and a decoder of H.264 were measured on a machine
/// of 2020: what they really need here is found out.
const ENCODE_PER_MPX: f64 = 4.0;
const SCALE_PER_MPX: f64 = 0.6;
const DECODE_PER_MPX: f64 = 2.4;
/// What is not in the pixels: threads, pipes, one picture.
const OUTPUT: f64 = 8.0;
/// The correction follows what is seen by this share, and within these bounds: a child that waits for something looks cheap.
const FOLLOW: f64 = 0.2;
const CORRECTION: std::ops::RangeInclusive<f64> = 0.3..=4.0;
/// Of two signs of overload, the second counts so much later: what was taken away has to show first.
const SETTLE: Duration = Duration::from_secs(5);
/// For a picture whose size nobody knows.
const SIZE_UNKNOWN: (u32, u32) = (1920, 1080);
const RATE_UNKNOWN: f64 = 30.0;

/// A stream's child, for as long as it lives.
pub type Owner = u64;

/// Of one output, in thousandths of a core, as worked out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Of the stream, whatever is made of it.
    pub decode: f64,
    pub encode: f64,
}

impl Cost {
    /// Of a thumbnail: a keyframe now and then, which is decoded for it alone.
    pub fn of_thumbnail(source: Option<(u32, u32)>, interval: Duration) -> Self {
        let (width, height) = source.unwrap_or(SIZE_UNKNOWN);
        let mpx = f64::from(width) * f64::from(height) / 1e6;
        let each = mpx * (DECODE_PER_MPX + SCALE_PER_MPX);
        Self { decode: 0.0, encode: OUTPUT + each / interval.as_secs_f64().max(1.0) }
    }

    pub fn of(rung: &Rung, source: Option<(u32, u32)>) -> Self {
        let source = source.unwrap_or(SIZE_UNKNOWN);
        let rate = if rung.source_rate > 0.0 { rung.source_rate } else { RATE_UNKNOWN };
        let mpx = |(width, height): (u32, u32)| f64::from(width) * f64::from(height) / 1e6;
        let (size, own_rate) = (rung.setting.size(source), rate / f64::from(rung.divisor.max(1)));
        let scaled = if size == source { 0.0 } else { mpx(source) * own_rate * SCALE_PER_MPX };
        Self { decode: mpx(source) * rate * DECODE_PER_MPX, encode: mpx(size) * own_rate * ENCODE_PER_MPX + scaled + OUTPUT }
    }
}

#[derive(Debug)]
struct Grant {
    owner: Owner,
    made: Made,
    cost: Cost,
    /// Its place was given to another: who makes it has to stop.
    revoked: bool,
}

#[derive(Debug)]
struct State {
    grants: Vec<Grant>,
    correction: f64,
    relieved: Option<Instant>,
    next_owner: Owner,
}

#[derive(Debug)]
pub struct Budget {
    /// Thousandths of a core.
    most: f64,
    state: Mutex<State>,
}

/// What is made first where not all can be: a higher one.
fn worth(made: Made) -> u32 {
    match made {
        Made::Opus | Made::Aac => u32::MAX,
        Made::Video => u32::MAX - 1,
        // Cheaper than any rung.
        Made::Thumbnail => u32::MAX - 2,
        // Rungs are numbered from the dearest on.
        Made::Rung(number) => number.into(),
    }
}

impl Budget {
    pub fn new(cores: f64) -> Self {
        let state = State { grants: Vec::new(), correction: 1.0, relieved: None, next_owner: 0 };
        Self { most: cores * 1000.0, state: Mutex::new(state) }
    }

    pub fn owner(&self) -> Owner {
        let mut state = self.lock();
        state.next_owner += 1;
        state.next_owner
    }

    /// Asks for a place. False: there is none, and nothing that is worth less.
    pub fn admit(&self, owner: Owner, made: Made, cost: Cost) -> bool {
        let mut state = self.lock();
        state.grants.retain(|grant| (grant.owner, grant.made) != (owner, made));
        let fits = |state: &State| state.load(Some((owner, cost))) <= self.most;
        let mut taken = Vec::new();
        while !fits(&state) {
            let least = state.grants.iter().enumerate().filter(|(_, grant)| !grant.revoked && worth(grant.made) < worth(made));
            let Some((at, _)) = least.min_by_key(|(_, grant)| worth(grant.made)) else { break };
            state.grants[at].revoked = true;
            taken.push(at);
        }
        // What nothing makes room for, alone on the machine, is made all the same: somebody waits for it.
        let admitted = fits(&state) || state.grants.iter().all(|grant| grant.revoked);
        if admitted {
            state.grants.push(Grant { owner, made, cost, revoked: false });
        } else {
            taken.into_iter().for_each(|at| state.grants[at].revoked = false);
        }
        admitted
    }

    /// Whether it may still be made.
    pub fn holds(&self, owner: Owner, made: Made) -> bool {
        self.lock().grants.iter().any(|grant| (grant.owner, grant.made) == (owner, made) && !grant.revoked)
    }

    pub fn release(&self, owner: Owner, made: Made) {
        self.lock().grants.retain(|grant| (grant.owner, grant.made) != (owner, made));
    }

    /// A child had to leave out pictures: the machine is slower than was thought. Takes the least of all away, if it is not
    /// the only one. True where it did.
    pub fn relieve(&self, now: Instant) -> bool {
        let mut state = self.lock();
        if state.relieved.is_some_and(|last| now.saturating_duration_since(last) < SETTLE) {
            return false;
        }
        let left = state.grants.iter().filter(|grant| !grant.revoked).count();
        let held = state.grants.iter_mut().filter(|grant| !grant.revoked && matches!(grant.made, Made::Rung(_)));
        let Some(least) = held.min_by_key(|grant| worth(grant.made)).filter(|_| left > 1) else { return false };
        least.revoked = true;
        state.relieved = Some(now);
        true
    }

    /// A child that makes all of this was seen to use so many thousandths of a core.
    pub fn observe(&self, owner: Owner, used: f64) {
        let mut state = self.lock();
        // Beside a picture a thumbnail is not seen, and alone it is less than the process around it.
        let counts = |grant: &&Grant| !grant.revoked && grant.made != Made::Thumbnail;
        let own = state.grants.iter().filter(|grant| grant.owner == owner).filter(counts);
        let (encode, decode) =
            own.fold((0.0, 0.0f64), |(sum, most), grant| (sum + grant.cost.encode, most.max(grant.cost.decode)));
        if encode + decode > 0.0 {
            let seen = used / (encode + decode);
            state.correction += (seen - state.correction) * FOLLOW;
            state.correction = state.correction.clamp(*CORRECTION.start(), *CORRECTION.end());
        }
    }

    /// Thousandths of a core that all that is made is thought to cost.
    pub fn load(&self) -> f64 {
        self.lock().load(None)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock; the data is whole either way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// With one more. A source is decoded once, whatever is made of it.
    fn load(&self, more: Option<(Owner, Cost)>) -> f64 {
        let held = self.grants.iter().filter(|grant| !grant.revoked).map(|grant| (grant.owner, grant.cost));
        let mut decoded: Vec<(Owner, f64)> = Vec::new();
        let mut sum = 0.0;
        for (owner, cost) in held.chain(more) {
            sum += cost.encode;
            match decoded.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, decode)) => *decode = decode.max(cost.decode),
                None => decoded.push((owner, cost.decode)),
            }
        }
        (sum + decoded.iter().map(|(_, decode)| decode).sum::<f64>()) * self.correction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(encode: f64) -> Cost {
        Cost { decode: 100.0, encode }
    }

    #[test]
    fn a_source_is_paid_for_once() {
        let budget = Budget::new(1.0);
        let [a, b] = [budget.owner(), budget.owner()];
        assert!(budget.admit(a, Made::Rung(1), cost(200.0)) && budget.admit(a, Made::Rung(2), cost(50.0)));
        assert_eq!(budget.load(), 350.0);
        assert!(budget.admit(b, Made::Rung(2), cost(50.0)));
        assert_eq!(budget.load(), 500.0);
        budget.release(a, Made::Rung(1));
        budget.release(a, Made::Rung(2));
        assert_eq!(budget.load(), 150.0);
    }

    #[test]
    fn what_is_worth_less_gives_way() {
        let budget = Budget::new(0.5);
        let owner = budget.owner();
        assert!(budget.admit(owner, Made::Rung(1), cost(300.0)));
        assert!(budget.admit(owner, Made::Rung(4), cost(150.0)), "the cheap rung is worth more");
        assert!(!budget.holds(owner, Made::Rung(1)) && budget.holds(owner, Made::Rung(4)));
        assert!(!budget.admit(owner, Made::Rung(1), cost(300.0)), "and does not give way in turn");
        assert!(budget.holds(owner, Made::Rung(4)));
        assert!(budget.admit(owner, Made::Video, cost(350.0)), "some can do without neither");
        assert!(!budget.holds(owner, Made::Rung(4)));
        let other = budget.owner();
        assert!(!budget.admit(other, Made::Video, cost(350.0)), "first come, first served");
    }

    #[test]
    fn what_nobody_has_room_for_is_made_if_nothing_else_is() {
        let budget = Budget::new(0.1);
        let owner = budget.owner();
        assert!(budget.admit(owner, Made::Rung(1), cost(300.0)));
        assert!(!budget.admit(owner, Made::Rung(1), cost(300.0)) || budget.holds(owner, Made::Rung(1)));
    }

    #[test]
    fn a_slow_machine_shows_itself() {
        let budget = Budget::new(1.0);
        let owner = budget.owner();
        assert!(budget.admit(owner, Made::Rung(1), cost(300.0)) && budget.admit(owner, Made::Rung(2), cost(100.0)));
        (0..50).for_each(|_| budget.observe(owner, 900.0));
        assert!((budget.load() - 900.0).abs() < 1.0, "{}", budget.load());
        assert!(!budget.admit(budget.owner(), Made::Rung(1), cost(10.0)), "its decoder alone is too much");
        let now = Instant::now();
        assert!(budget.relieve(now) && !budget.holds(owner, Made::Rung(1)));
        assert!(!budget.relieve(now), "what was taken away has to show first");
        assert!(!budget.relieve(now + SETTLE), "the last one is left");
        let (other, before) = (budget.owner(), budget.load());
        assert!(budget.admit(other, Made::Thumbnail, cost(0.0)));
        budget.observe(other, 20.0);
        budget.release(other, Made::Thumbnail);
        assert_eq!(budget.load(), before, "a thumbnail says nothing of rungs");
    }

    #[test]
    fn a_cost_is_of_sizes_and_rates() {
        let rung = |lines, divisor| {
            let setting = media_core::ladder::Setting { lines, bitrate: 400_000, ..Rung::ALIKE.setting };
            Cost::of(&Rung { setting, divisor, source_rate: 30.0, ..Rung::ALIKE }, Some((1920, 1080)))
        };
        assert!((240.0..280.0).contains(&rung(1080, 1).encode), "{:?}", rung(1080, 1));
        assert!((60.0..100.0).contains(&rung(900, 3).encode), "{:?}", rung(900, 3));
        assert!(rung(720, 6).encode < 35.0 && rung(720, 6).decode > 100.0);
        let thumbnail = Cost::of_thumbnail(Some((1920, 1080)), Duration::from_secs(5));
        assert!(thumbnail.decode + thumbnail.encode < rung(720, 6).encode / 2.0, "{thumbnail:?}");
    }
}
