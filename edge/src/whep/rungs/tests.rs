//! The choice as a table, and in a loop with what measures the way (`transport::Bandwidth`), in virtual time.

use std::sync::Arc;

use super::*;
use crate::whep::broadcast::Tracks;

mod link;

const SECOND: Duration = Duration::from_secs(1);

fn rung(number: u8) -> TrackId {
    TrackId::rung(number).unwrap()
}

/// A source of 3 Mbit/s and the legible ladder.
fn front() -> Front {
    let rungs = [(rung(1), 1_500_000), (rung(2), 800_000), (rung(3), 400_000), (rung(4), 200_000)];
    let all = candidates([(TrackId::VIDEO, Some(3_000_000))], rungs, Tracks::default(), 60_000, &[]);
    let pictures = Tracks::default().with(TrackId::VIDEO);
    Front { flowing: pictures, pictures, candidates: all.into(), ..Front::default() }
}

struct Viewer {
    selector: Selector,
    now: Instant,
    front: Front,
    choice: Option<TrackId>,
}

impl Viewer {
    fn new() -> Self {
        Self { selector: Selector::new(), now: Instant::now(), front: front(), choice: None }
    }

    fn look(&mut self) -> Option<TrackId> {
        self.selector.look(self.now, &self.front, self.choice).map(|switch| switch.to)
    }

    /// The way carries so many kilobits for so long; what is wanted is sent a tenth of a second later. Gives the changes, with
    /// the tenths of a second at which they were wanted.
    fn run(&mut self, kilobits: u64, tenths: u64) -> Vec<(u64, &'static str)> {
        self.selector.estimate(kilobits * 1000);
        let mut changes = Vec::new();
        for tenth in 0..tenths {
            if let Some(to) = self.look() {
                changes.push((tenth, name(to)));
            }
            self.now += SECOND / 10;
            if self.selector.chosen() != self.selector.current() {
                self.selector.switched();
            }
        }
        changes
    }
}

#[test]
fn of_an_unknown_way_the_best_is_believed() {
    let mut viewer = Viewer::new();
    assert_eq!((viewer.look(), viewer.selector.aim()), (None, None));
    assert_eq!(viewer.selector.poll_timeout(viewer.now), None);
}

#[test]
fn down_goes_at_once_and_up_in_a_while() {
    let mut viewer = Viewer::new();
    assert_eq!(viewer.run(1000, 10), [(0, "rung-3")]);
    assert_eq!(viewer.run(1000, 100), [], "a fifth more is needed to go up than to stay");
    assert_eq!(viewer.run(1900, 100), []);
    assert_eq!(viewer.run(4000, 100), [(20, "source")], "at once to what fits");
    assert_eq!(viewer.run(430, 10), [(0, "rung-5")]);
    assert_eq!(viewer.run(2000, 100).last(), Some(&(50, "rung-2")), "in the middle of the ladder");
}

/// The viewer's front, with these rungs being made.
fn make(viewer: &mut Viewer, rungs: &[TrackId]) {
    let is_made = |track: TrackId| !track.is_rung() || rungs.contains(&track);
    viewer.front.candidates = viewer.front.candidates.iter().map(|one| Candidate { ready: is_made(one.track), ..*one }).collect();
}

#[test]
fn what_is_there_at_once_is_gone_to_first() {
    let mut viewer = Viewer::new();
    make(&mut viewer, &[rung(4)]);
    viewer.selector.estimate(1_000_000);
    let switch = viewer.selector.look(viewer.now, &viewer.front, None).unwrap();
    assert_eq!((switch.to, switch.rests), (rung(4), true));
    assert_eq!(viewer.selector.prepares(), Some(rung(2)));
    assert_eq!(viewer.run(1000, 30), [], "it is not there yet");
    make(&mut viewer, &[rung(4), rung(2)]);
    assert_eq!(viewer.run(1000, 30), [(0, "rung-3")]);
    assert_eq!(viewer.selector.prepares(), None);
}

#[test]
fn from_there_it_goes_to_what_fits_by_then() {
    let bound = |kilobits: u64| {
        let mut viewer = Viewer::new();
        make(&mut viewer, &[rung(4), rung(3), rung(1)]);
        assert_eq!(viewer.run(1000, 1), [(0, "rung-4")], "the better of those that are there");
        (viewer.run(kilobits, 30), viewer.selector.prepares())
    };
    assert_eq!(bound(1000), (vec![], Some(rung(2))), "the one that was meant is still being made");
    assert_eq!(bound(1900), (vec![(9, "rung-2")], None), "a second later more is known of the way");
    assert_eq!(bound(500), (vec![], None), "it is there");
    assert_eq!(bound(300), (vec![(0, "rung-5")], None), "less at once, as always");
}

#[test]
fn what_does_not_come_is_not_waited_for() {
    let mut viewer = Viewer::new();
    make(&mut viewer, &[rung(4)]);
    assert_eq!(viewer.run(1000, 200), [(0, "rung-5"), (141, "rung-4")], "then up as always, to what is somewhat cheaper");
}

#[test]
fn a_choice_ends_what_was_prepared() {
    let mut viewer = Viewer::new();
    make(&mut viewer, &[rung(4)]);
    viewer.run(1000, 1);
    viewer.choice = Some(rung(4));
    assert_eq!((viewer.run(1000, 1), viewer.selector.prepares()), (vec![], None));
}

#[test]
fn a_little_too_much_is_borne_for_a_while() {
    let mut viewer = Viewer::new();
    assert_eq!(viewer.run(3000, 20), []);
    assert_eq!(viewer.run(3500, 20), []);
    assert_eq!(viewer.run(3000, 40), [(25, "rung-2")]);
    assert_eq!(viewer.run(100, 10), [(0, "rung-5")], "the least there is, though it does not fit");
    assert_eq!(viewer.run(90, 100), []);
}

#[test]
fn a_mistake_is_not_repeated_soon() {
    let mut viewer = Viewer::new();
    viewer.run(1000, 1);
    let mut changes = Vec::new();
    // The better one fits until it is sent.
    for second in 0..600 {
        let is_better = viewer.selector.current() == rung(1);
        let came = viewer.run(if is_better { 1000 } else { 2500 }, 10);
        changes.extend(came.iter().map(|(_, to)| (second, *to)));
    }
    assert!((8..20).contains(&changes.len()), "{changes:?}");
    assert!(changes[changes.len() - 1].0 - changes[changes.len() - 3].0 > 100, "{changes:?}");
}

#[test]
fn what_the_viewer_chose_goes_first() {
    let mut viewer = Viewer::new();
    viewer.choice = Some(rung(4));
    assert_eq!(viewer.run(5000, 50), [(0, "rung-5")]);
    assert_eq!(viewer.selector.aim(), None, "and nothing is tried");
    viewer.choice = Some(TrackId::VIDEO);
    assert_eq!(viewer.run(500, 50), [(0, "source")]);
    viewer.choice = None;
    assert_eq!(viewer.run(500, 50), [(0, "rung-4")]);
}

#[test]
fn what_does_not_come_is_done_without() {
    let mut viewer = Viewer::new();
    viewer.selector.estimate(1_000_000);
    assert_eq!(viewer.look(), Some(rung(2)));
    viewer.now += PENDING_MAX - SECOND;
    assert_eq!(viewer.look(), None, "the old picture goes on");
    viewer.now += SECOND;
    assert_eq!(viewer.look(), Some(TrackId::VIDEO));
    assert_eq!(viewer.look(), Some(rung(3)), "the next one that fits");
    viewer.selector.switched();
    // It cannot be made any more.
    viewer.front.candidates = viewer.front.candidates.iter().filter(|one| one.track != rung(3)).copied().collect();
    assert_eq!(viewer.look(), Some(rung(4)));
}

#[test]
fn while_one_is_waited_for_less_may_be_asked_for() {
    let mut viewer = Viewer::new();
    viewer.selector.estimate(1_900_000);
    assert_eq!(viewer.look(), Some(rung(1)));
    viewer.selector.estimate(600_000);
    assert_eq!(viewer.look(), Some(rung(3)));
    viewer.selector.estimate(5_000_000);
    viewer.now += 5 * SECOND;
    assert_eq!(viewer.look(), None, "and never more");
}

#[test]
fn a_simulcast_publishers_layers_are_gone_through_too() {
    let low = TrackId::layer(0).unwrap();
    let mut viewer = Viewer::new();
    viewer.front.pictures = viewer.front.pictures.with(low);
    let pictures = [(TrackId::VIDEO, Some(2_500_000)), (low, Some(600_000))];
    viewer.front.candidates = candidates(pictures, [], Tracks::default(), 60_000, &[]).into();
    assert_eq!(viewer.run(900, 20), [(0, "layer")]);
    assert_eq!(viewer.run(4000, 60), [(20, "source")]);
    viewer.front.pictures = Tracks::default().with(low);
    viewer.front.candidates = Arc::from([viewer.front.candidates[1]]);
    assert_eq!(viewer.run(4000, 10), [(0, "layer")], "the largest has stopped");
}

#[test]
fn what_is_aimed_at_is_the_next_that_is_not_known_to_fit() {
    let mut viewer = Viewer::new();
    viewer.run(500, 1);
    assert_eq!(viewer.selector.current(), rung(3));
    viewer.run(500, 50);
    let needs = |track| viewer.front.candidates.iter().find(|one| one.track == track).unwrap().bitrate * UP / 100 + 1;
    let (next, after) = (needs(rung(2)), needs(rung(1)));
    assert_eq!(viewer.selector.aim(), Some(next));
    viewer.selector.estimate(next);
    viewer.look();
    assert_eq!(viewer.selector.aim(), Some(after), "it climbs on while it waits");
}

#[test]
fn rates_are_told_when_they_have_changed() {
    let of = |bitrate, known: &[Candidate]| {
        candidates([(TrackId::VIDEO, bitrate)], [(rung(1), 1_500_000)], Tracks::default(), 0, known)
    };
    let first = of(None, &[]);
    assert_eq!(first[0], Candidate { track: TrackId::VIDEO, bitrate: 0, ready: true }, "the source goes first");
    let known = of(Some(3_000_000), &first);
    assert_eq!(of(Some(3_200_000), &known), known);
    assert_ne!(of(Some(4_000_000), &known), known);
    assert_eq!(of(Some(1_000_000), &known)[0].track, rung(1));
}
