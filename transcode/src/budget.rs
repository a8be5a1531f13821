//! How much of the machine pictures may cost, over all streams, and who gets it.
//!
//! Sound costs little and is always made. Of pictures, what more viewers depend on for what it costs comes first: the one that
//! some cannot do without, then the cheapest rung. What is asked for and does not fit takes the place of what is worth less, or
//! is refused; nothing is slowed down for it, and the publisher's own picture is never touched.
//!
//! A cost is worked out from sizes, rates and prices (`prices.rs`) before anything is made, and corrected by what children were
//! seen to need.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use media_core::{Rung, stream::Made};

use crate::prices::Prices;

/// What is not in the pixels: threads, pipes, one picture. Thousandths of a core.
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

/// What has to be done each second for one output, in millions of pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Of the stream, whatever is made of it.
    pub decode: f64,
    /// For this output alone.
    pub own_decode: f64,
    pub scale: f64,
    pub encode: f64,
}

impl Work {
    /// Of a thumbnail: a keyframe now and then, which is decoded for it alone.
    pub fn of_thumbnail(source: Option<(u32, u32)>, interval: Duration) -> Self {
        let each = mpx(source.unwrap_or(SIZE_UNKNOWN)) / interval.as_secs_f64().max(1.0);
        Self { own_decode: each, scale: each, ..Self::default() }
    }

    pub fn of(rung: &Rung, source: Option<(u32, u32)>) -> Self {
        let source = source.unwrap_or(SIZE_UNKNOWN);
        let rate = if rung.source_rate > 0.0 { rung.source_rate } else { RATE_UNKNOWN };
        let (size, own_rate) = (rung.setting.size(source), rate / f64::from(rung.divisor.max(1)));
        let scale = if size == source { 0.0 } else { mpx(source) * own_rate };
        Self { decode: mpx(source) * rate, own_decode: 0.0, scale, encode: mpx(size) * own_rate }
    }

    /// In thousandths of a core, without what the stream pays once.
    fn own_cost(&self, prices: Prices) -> f64 {
        self.encode * prices.encode + self.scale * prices.scale + self.own_decode * prices.decode + OUTPUT
    }
}

fn mpx((width, height): (u32, u32)) -> f64 {
    f64::from(width) * f64::from(height) / 1e6
}

#[derive(Debug)]
struct Grant {
    owner: Owner,
    made: Made,
    work: Work,
    /// Its place was given to another: who makes it has to stop.
    revoked: bool,
}

#[derive(Debug)]
struct State {
    grants: Vec<Grant>,
    prices: Prices,
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
        let state = State { grants: Vec::new(), prices: Prices::ASSUMED, correction: 1.0, relieved: None, next_owner: 0 };
        Self { most: cores * 1000.0, state: Mutex::new(state) }
    }

    pub fn owner(&self) -> Owner {
        let mut state = self.lock();
        state.next_owner += 1;
        state.next_owner
    }

    /// What things cost here was measured. What was learnt of other prices does not hold for these.
    pub fn reprice(&self, prices: Prices) {
        let mut state = self.lock();
        (state.prices, state.correction) = (prices, 1.0);
    }

    /// Asks for a place. False: there is none, and nothing that is worth less.
    pub fn admit(&self, owner: Owner, made: Made, work: Work) -> bool {
        let mut state = self.lock();
        state.grants.retain(|grant| (grant.owner, grant.made) != (owner, made));
        let fits = |state: &State| state.load(Some((owner, work))) <= self.most;
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
            state.grants.push(Grant { owner, made, work, revoked: false });
        } else {
            taken.into_iter().for_each(|at| state.grants[at].revoked = false);
        }
        admitted
    }

    /// Whether it would be given a place now.
    pub fn has_room(&self, owner: Owner, made: Made, work: Work) -> bool {
        let state = self.lock();
        // What is worth less gives way.
        let counts = |grant: &Grant| !grant.revoked && worth(grant.made) >= worth(made);
        !state.grants.iter().any(counts) || state.load_of(counts, Some((owner, work))) <= self.most
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
        let (cost, decode) = own.fold((0.0, 0.0f64), |(sum, most), grant| {
            (sum + grant.work.own_cost(state.prices), most.max(grant.work.decode * state.prices.decode))
        });
        if cost + decode > 0.0 {
            let seen = used / (cost + decode);
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
    fn load(&self, more: Option<(Owner, Work)>) -> f64 {
        self.load_of(|grant| !grant.revoked, more)
    }

    /// With one more. A source is decoded once, whatever is made of it.
    fn load_of(&self, counts: impl Fn(&Grant) -> bool, more: Option<(Owner, Work)>) -> f64 {
        let held = self.grants.iter().filter(|grant| counts(grant)).map(|grant| (grant.owner, grant.work));
        let mut decoded: Vec<(Owner, f64)> = Vec::new();
        let mut sum = 0.0;
        for (owner, work) in held.chain(more) {
            sum += work.own_cost(self.prices);
            match decoded.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, decode)) => *decode = decode.max(work.decode),
                None => decoded.push((owner, work.decode)),
            }
        }
        let decoded: f64 = decoded.iter().map(|(_, decode)| decode).sum();
        (sum + decoded * self.prices.decode) * self.correction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where everything costs one.
    fn budget(cores: f64) -> Budget {
        let budget = Budget::new(cores);
        budget.reprice(Prices { encode: 1.0, scale: 1.0, decode: 1.0 });
        budget
    }

    fn cost(own: f64) -> Work {
        Work { decode: 100.0, encode: own - OUTPUT, ..Work::default() }
    }

    #[test]
    fn a_source_is_paid_for_once() {
        let budget = budget(1.0);
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
        let budget = budget(0.5);
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
        let budget = budget(0.1);
        let owner = budget.owner();
        assert!(budget.admit(owner, Made::Rung(1), cost(300.0)));
        assert!(!budget.admit(owner, Made::Rung(1), cost(300.0)) || budget.holds(owner, Made::Rung(1)));
    }

    #[test]
    fn a_slow_machine_shows_itself() {
        let budget = budget(1.0);
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

    /// A child that is kept from its work looks cheap, so what it costs does not keep rungs away when the machine is free again.
    #[test]
    fn what_was_taken_from_a_starved_machine_has_room_again() {
        let (budget, now) = (budget(1.0), Instant::now());
        let owner = budget.owner();
        let rungs = [(Made::Rung(1), cost(500.0)), (Made::Rung(2), cost(200.0)), (Made::Rung(3), cost(100.0))];
        assert!(rungs.iter().all(|(made, work)| budget.admit(owner, *made, *work)));
        for at in 0..20 {
            budget.observe(owner, 150.0);
            budget.relieve(now + SETTLE * at);
        }
        let left = |budget: &Budget| rungs.map(|(made, _)| budget.holds(owner, made));
        assert_eq!(left(&budget), [false, false, true], "the last one is left");
        for (made, work) in rungs.into_iter().rev().skip(1) {
            assert!(budget.has_room(owner, made, work) && budget.admit(owner, made, work), "{made:?}");
            (0..50).for_each(|_| budget.observe(owner, budget.load()));
        }
        assert_eq!(left(&budget), [true; 3]);
    }

    #[test]
    fn there_is_room_where_a_place_would_be_given() {
        let budget = budget(0.5);
        let owner = budget.owner();
        assert!(budget.has_room(owner, Made::Rung(1), cost(900.0)), "alone on the machine");
        assert!(budget.admit(owner, Made::Rung(2), cost(300.0)));
        assert!(!budget.has_room(owner, Made::Rung(1), cost(300.0)));
        assert!(budget.has_room(owner, Made::Rung(3), cost(300.0)), "the other would give way");
        assert!(budget.holds(owner, Made::Rung(2)), "and has not done so by a question");
        budget.release(owner, Made::Rung(2));
        assert!(budget.has_room(owner, Made::Rung(1), cost(300.0)));
    }

    #[test]
    fn what_was_measured_counts_for_all_that_is_made() {
        let budget = Budget::new(1.0);
        let owner = budget.owner();
        assert!(budget.admit(owner, Made::Rung(1), Work { decode: 50.0, scale: 20.0, encode: 100.0, ..Work::default() }));
        let assumed = Prices::ASSUMED;
        assert_eq!(budget.load(), 50.0 * assumed.decode + 20.0 * assumed.scale + 100.0 * assumed.encode + OUTPUT);
        (0..50).for_each(|_| budget.observe(owner, 900.0));
        budget.reprice(Prices { encode: 2.0, scale: 0.5, decode: 1.0 });
        assert_eq!(budget.load(), 260.0 + OUTPUT, "what was learnt is of other prices");
        (0..50).for_each(|_| budget.observe(owner, 400.0));
        assert!((budget.load() - 400.0).abs() < 1.0, "and children are watched all the same: {}", budget.load());
    }

    #[test]
    fn a_cost_is_of_sizes_and_rates() {
        let work = |lines, divisor| {
            let setting = media_core::ladder::Setting { lines, bitrate: 400_000, ..Rung::ALIKE.setting };
            Work::of(&Rung { setting, divisor, source_rate: 30.0, ..Rung::ALIKE }, Some((1920, 1080)))
        };
        let own = |work: Work| work.own_cost(Prices::ASSUMED);
        assert!((240.0..280.0).contains(&own(work(1080, 1))), "{:?}", work(1080, 1));
        assert!((60.0..100.0).contains(&own(work(900, 3))), "{:?}", work(900, 3));
        assert!(own(work(720, 6)) < 35.0 && work(720, 6).decode > 60.0);
        let thumbnail = Work::of_thumbnail(Some((1920, 1080)), Duration::from_secs(5));
        assert!(thumbnail.decode + own(thumbnail) < own(work(720, 6)) / 2.0, "{thumbnail:?}");
    }
}
