//! What is kept, when, and what is made of it again.

use media_core::timeline::Anchor;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn wall(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn state() -> State {
    State {
        epoch: 7,
        next_msn: 1000,
        discontinuities: 2,
        target_duration: 2,
        part_target_ms: 201,
        keyframe_interval_us: Some(2_000_000),
        end_us: 0,
        anchor: Some(Anchor { media_us: 50_000_000, wall_us: 1_800_000_000_000_000 }),
    }
}

fn grid() -> Grid {
    Grid {
        target_duration: 2,
        part_target_ms: 201,
        keyframe_interval_us: Some(2_000_000),
        independent_segments: true,
        irregular: false,
        constant: false,
        frame_rate: 30_000.0 / 1001.0,
    }
}

fn poll(keeper: &mut Keeper, state: &State, live: bool) -> Option<Kept> {
    let (tracks, grid) = (Tracks { video: true, audio: true }, grid());
    keeper.poll(7, &Progress { live, lead: Lead::Video, tracks, grid: &grid, state }, wall(0))
}

fn kept() -> Kept {
    poll(&mut Keeper::default(), &state(), true).unwrap()
}

#[test]
fn it_is_kept_ahead_and_not_for_every_segment() {
    let (mut keeper, mut state, mut writes) = (Keeper::default(), state(), 0);
    let mut reserved = 0;
    for _ in 0..80 {
        if let Some(kept) = poll(&mut keeper, &state, true) {
            writes += 1;
            reserved = kept.state.next_msn;
        }
        assert!(reserved >= state.next_msn + 4, "a slow disk has the time of four segments");
        state.next_msn += 1;
    }
    assert_eq!(writes, 20);
}

#[test]
fn what_changes_seldom_is_kept_at_once() {
    let (mut keeper, mut state) = (Keeper::default(), state());
    assert!(poll(&mut keeper, &state, true).is_some());
    assert!(poll(&mut keeper, &state, true).is_none());
    assert!(poll(&mut keeper, &state, false).is_some(), "the publisher left");
    assert!(poll(&mut keeper, &state, true).is_some(), "and came back");
    state.discontinuities += 1;
    assert!(poll(&mut keeper, &state, true).is_some());
    state.anchor = None;
    assert!(poll(&mut Keeper::default(), &state, true).is_none(), "nothing was published yet");
}

#[test]
fn it_is_read_as_it_was_written() {
    assert_eq!(Kept::parse(&kept().render()), Ok(kept()));
}

#[test]
fn what_is_damaged_is_said_in_words() {
    let text = kept().render();
    let broken = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        Kept::parse(&text.replacen(from, to, 1)).unwrap_err()
    };
    assert_eq!(broken("\"version\":1", "\"version\":9"), Damage::OtherVersion { found: 9 });
    for (from, to) in [
        ("\"target_duration\":2", "\"target_duration\":0"),
        ("\"part_target_ms\":201", "\"part_target_ms\":202"),
        ("\"presentation\":7", "\"presentation\":0"),
        ("\"next_msn\":1008", "\"next_msn\":18446744073709551615"),
        ("\"media_us\":50000000", "\"media_us\":-5"),
        ("\"frame_rate\":29.9", "\"frame_rate\":-29.9"),
        ("\"wall_us\":18", "\"wall_us\":-18"),
    ] {
        let damage = broken(from, to);
        assert!(matches!(damage, Damage::Impossible(_)), "{to}: {damage:?}");
    }
    for cut in 0..text.len() {
        assert!(matches!(Kept::parse(&text[..cut]), Err(Damage::Unreadable(_))), "{cut}");
    }
    for other in ["", "null", "[]", "{}", "\u{0}\u{0}", "{\"version\":1}"] {
        assert!(Kept::parse(other).unwrap_err().to_string().starts_with("it is not what this server writes"), "{other}");
    }
}

#[test]
fn the_window_counts_from_when_the_process_may_have_died() {
    let window = 60 * SECOND;
    let away = poll(&mut Keeper::default(), &state(), false).unwrap();
    assert_eq!(away.remaining(window, wall(10)), Some(50 * SECOND));
    assert_eq!(away.remaining(window, wall(60)), None);
    // Eight segments of 2 s may have been published since.
    assert_eq!(kept().remaining(window, wall(10)), Some(66 * SECOND));
    assert_eq!(kept().remaining(window, wall(76)), None);
    assert_eq!(kept().remaining(Duration::ZERO, wall(0)), None, "nothing is resumed where nothing ever is");
    assert_eq!(away.remaining(window, UNIX_EPOCH), Some(window), "a clock that was set back");
}

#[test]
fn numbers_and_media_time_go_on_beyond_what_was_used() {
    let soon = kept().resumed(wall(3));
    assert_eq!((soon.next_msn, soon.discontinuities), (1008, 2));
    assert_eq!((soon.target_duration, soon.part_target_ms), (2, 201));
    assert!(soon.end_us > 50_000_000 + 8 * 2_460_000, "eight segments of the greatest length");
    // A disk that failed: the process may have lived all that time, at less than a segment a second.
    let late = kept().resumed(wall(70));
    assert!(late.next_msn >= 1000 + 70 && late.end_us >= 50_000_000 + 70_000_000, "{late:?}");
    let set_back = kept().resumed(UNIX_EPOCH);
    assert_eq!(set_back, kept().state);
}
