//! That several shards are as one: the same calls, compared, and what only several can do wrong.

use super::*;

const FAIR: Weather = Weather { delay: Duration::from_millis(5), lose: 0, repeat: 0, reorder: 0 };
const OTHER_SESSION: u64 = 2;

/// What happened in a call: when the peer was connected, and what its application got when.
type Seen = (Option<Duration>, Vec<(u16, u32, Duration)>);

fn seen(call: Call) -> Seen {
    let got = call.got.iter().map(|(sequence, timestamp, at)| (*sequence, *timestamp, *at - call.began));
    (call.connected, got.collect())
}

/// Joins, watches, moves, goes over to another layer, and restarts ICE.
fn long_call(mut call: Call) -> Seen {
    call.run(200);
    call.stream(TRACK, 100);
    call.behind = Some("10.0.0.2:6000".parse().unwrap());
    call.stream(TRACK, 300);
    call.shards.restart(call.now, SESSION, "ours", &credentials("second")).unwrap();
    call.shards.select(call.now, SESSION, OTHER_TRACK, false);
    call.stream(OTHER_TRACK, 100);
    // What was lost when its address changed is told, and that it went over.
    let others = call.events.iter().filter(|event| !matches!(event, Event::Bandwidth { .. }));
    assert!(matches!(others.collect::<Vec<_>>()[..], [Event::Connected { .. }, Event::Switched { .. }]), "{:?}", call.events);
    call.shards.close(call.now, SESSION, Closed::ByUs);
    call.tick();
    assert!(matches!(call.events.last(), Some(Event::Closed(Closed::ByUs))));
    assert_eq!((call.shards.sessions(), call.shards.paths(), call.shards.entries()), (0, 0, 0));
    seen(call)
}

#[test]
fn the_peer_sees_no_difference() {
    let alone = long_call(Call::new(1, FAIR));
    assert!(alone.1.len() > 1500, "{}", alone.1.len());
    for shards in 2..=5 {
        let several = long_call(Call::new(shards, FAIR));
        assert_eq!(several.0, alone.0, "{shards} shards connect as soon as one");
        assert!(several.1 == alone.1, "with {shards} shards the viewer gets other packets, or at other times");
    }
}

#[test]
fn what_is_handed_over_late_is_not_lost() {
    for shards in [2, 4] {
        let mut call = Call::new(shards, FAIR);
        call.shards.slow = true;
        call.run(400);
        call.stream(TRACK, 90);
        assert_eq!(call.got.len(), 450, "{shards} shards");
    }
}

#[test]
fn a_session_that_cannot_go_is_served_where_it_is() {
    let mut call = Call::new(2, FAIR);
    call.shards.full = true;
    call.run(200);
    let before = call.shards.handed;
    call.stream(TRACK, 90);
    assert_eq!(call.got.len(), 450);
    assert!(call.shards.handed > before + 3, "by what is handed over");
    call.shards.close(call.now, SESSION, Closed::ByUs);
    assert_eq!((call.shards.sessions(), call.shards.paths(), call.shards.entries()), (0, 0, 0));
}

#[test]
fn a_session_goes_to_where_its_first_check_arrived_and_is_left_alone_there() {
    let mut call = Call::new(2, FAIR);
    call.run(200);
    assert!((2..=3).contains(&call.shards.handed), "the check, and the session: {}", call.shards.handed);
    let before = call.shards.handed;
    call.stream(TRACK, 300);
    assert_eq!(call.shards.handed, before, "nothing of ten seconds had to be handed over");
    call.behind = Some("10.0.0.2:6000".parse().unwrap());
    call.stream(TRACK, 300);
    assert!(call.shards.handed > before + 10, "what comes from its new address is");
}

/// Whoever does not know the password, or has not proved the address, costs no other shard anything.
#[test]
fn floods_are_not_handed_over() {
    let mut call = Call::new(4, FAIR);
    call.run(200);
    let before = call.shards.handed;
    let wrong = crate::stun::key("a/password/that/is/wrong");
    for n in 0..1000_u16 {
        let path = Path::Udp { remote: SocketAddr::from(([198, 51, 100, n as u8], 1000 + n)), local: None };
        let forged = crate::stun::check("ours:x", &wrong, [7; 12]);
        assert_eq!(call.shards.handle_datagram(call.now, path, &forged), Fate::Forged);
        assert_eq!(call.shards.handle_datagram(call.now, path, &[0x80, 96, 0, 0]), Fate::Unproved);
        assert_eq!(call.shards.handle_datagram(call.now, path, &[22, 254, 253]), Fate::Unproved);
    }
    assert_eq!(call.shards.handed, before);
    call.stream(TRACK, 30);
    assert_eq!(call.got.len(), 150);
}

/// A session's own check may come from anywhere, even from another viewer's address: that one is not cut off.
#[test]
fn an_address_in_use_is_not_taken_by_a_session_of_another_shard() {
    let behind: Option<SocketAddr> = Some("10.0.0.2:6000".parse().unwrap());
    for (shards, behind) in [1, 2, 3, 4].into_iter().flat_map(|shards| [(shards, None), (shards, behind)]) {
        let mut call = Call::new(shards, FAIR);
        call.run(200);
        call.behind = behind;
        call.stream(TRACK, 300);
        let taker = setup(&call.negotiated, credentials("taker"), &call.identity, call.now);
        call.shards.accept(call.now, OTHER_SESSION, taker).unwrap();
        let check = crate::stun::check("taker:x", &crate::stun::key("0123456789abcdefghijklmn"), [7; 12]);
        let elsewhere = Path::Udp { remote: "10.0.0.3:6000".parse().unwrap(), local: None };
        let victims = call.path();
        call.shards.take_counts();
        call.down.weather.lose = 10;
        for _ in 0..100 {
            for path in [elsewhere, victims] {
                assert_eq!(call.shards.handle_datagram(call.now, path, &check), Fate::Check);
            }
            call.stream(TRACK, 1);
        }
        call.down.weather.lose = 0;
        let repeated = call.shards.take_counts().repeated;
        assert!(repeated > 20, "{shards} shards, {behind:?}: it is still heard, but {repeated} packets came again");
        // Once it was silent for a while it may come to another, as ports are used again.
        call.up.weather.lose = 1;
        call.run(7000);
        assert_eq!(call.shards.handle_datagram(call.now, victims, &check), Fate::Check);
        assert_eq!(call.shards.handle_datagram(call.now, victims, &[0x80, 96, 0, 0]), Fate::Media);
        call.shards.close(call.now, OTHER_SESSION, Closed::ByUs);
        let fate = call.shards.handle_datagram(call.now, victims, &[0x80, 96, 0, 0]);
        assert_eq!(fate, Fate::Unproved, "{shards} shards, {behind:?}: it was taken");
    }
}

/// Two viewers, on two shards.
#[test]
fn a_keyframe_wished_for_on_several_shards_is_asked_for_once() {
    for shards in [1, 2, 4] {
        let mut call = Call::new(shards, FAIR);
        let other = setup(&call.negotiated, credentials("other"), &call.identity, call.now);
        call.shards.accept(call.now, OTHER_SESSION, other).unwrap();
        let wish = |call: &mut Call| {
            [SESSION, OTHER_SESSION].into_iter().for_each(|id| call.shards.select(call.now, id, OTHER_TRACK, false));
            let now = call.now;
            std::iter::from_fn(|| call.shards.poll_wanted(now)).collect::<Vec<_>>()
        };
        assert_eq!(wish(&mut call), [OTHER_TRACK], "{shards} shards");
        call.now += 100 * MS;
        assert!(wish(&mut call).is_empty(), "soon after it waits");
        call.now += 400 * MS;
        assert_eq!(wish(&mut call), [OTHER_TRACK], "and is told again");
        call.now += 100 * MS;
        assert!(wish(&mut call).is_empty());
        let payloads = vec![Bytes::from_static(&[0x65; 100])];
        call.shards.push(call.now, OTHER_TRACK, OutFrame { timestamp: 0, at_us: 0, keyframe: true, payloads });
        call.now += 1000 * MS;
        assert_eq!(call.shards.poll_wanted(call.now), None, "the keyframe came: nothing is left to wish for");
    }
}

#[test]
fn a_connection_that_ends_elsewhere_is_forgotten_by_the_owner() {
    for shards in [1, 2, 3, 4] {
        let mut call = Call::new(shards, FAIR);
        call.run(200);
        let paths = call.shards.paths();
        let check = crate::stun::check("ours:x", &crate::stun::key("0123456789abcdefghijklmn"), [7; 12]);
        let connections = (0..8).map(|connection| Path::Tcp { connection, remote: call.viewer_address }).collect::<Vec<_>>();
        for path in &connections {
            assert_eq!(call.shards.handle_datagram(call.now, *path, &check), Fate::Check);
        }
        assert_eq!(call.shards.paths(), paths + connections.len());
        connections.iter().for_each(|path| call.shards.forget_path(call.now, *path));
        assert_eq!(call.shards.paths(), paths, "{shards} shards");
        assert_eq!(call.shards.handle_datagram(call.now, connections[0], &[0x80, 96, 0, 0]), Fate::Unproved);
    }
}

/// Tracks are told to each shard by a queue, and a session comes by another.
#[test]
fn a_track_that_is_told_after_its_viewer_came_has_it() {
    let mut call = Call::new(2, FAIR);
    call.shards.remove_track(TRACK);
    call.run(200);
    call.shards.add_track(TRACK);
    assert_eq!(call.shards.viewers(TRACK), 1);
    call.stream(TRACK, 30);
    assert_eq!(call.got.len(), 150);
}
