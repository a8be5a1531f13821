//! Viewers that are not ours (`rtc`'s peer connection) on one port of several shards, over loopback: wherever the kernel
//! puts them and wherever they go, they are served as by one.

use crate::viewer::{MS, PATIENCE, Port, Viewer, Way, line, stream, tcp, udp, wait};
use rtc::sansio::Protocol as _;
use transport::{Closed, Event};

/// So many viewers, the second on another shard than the first, and all connected.
async fn audience(port: &mut Port, viewers: usize, shards: usize) -> Vec<Viewer> {
    port.push(true);
    let mut scout = port.watch(Way::Udp(udp())).await;
    scout.moves(Way::Udp(udp())).await;
    let apart = if shards > 1 { port.socket_elsewhere(&scout).await } else { udp() };
    let Way::Udp(first) = scout.way else { panic!("the scout goes by UDP") };
    // Its addresses are nobody's from now on.
    drop(scout.session);
    wait(async || port.metric("sessions") == 0).await;
    let sockets = [first, apart].into_iter().chain(std::iter::repeat_with(udp));
    let mut all = Vec::new();
    for socket in sockets.take(viewers) {
        all.push(port.watch(Way::Udp(socket)).await);
    }
    stream(port, &mut all, 2).await;
    all
}

#[tokio::test]
async fn viewers_on_every_shard_get_every_frame() {
    for shards in [1, 2, 4] {
        let mut port = Port::start(shards).await;
        let mut viewers = audience(&mut port, 6, shards).await;
        stream(&mut port, &mut viewers, 90).await;
        assert_eq!(port.metric("sessions"), 6);
        assert!(viewers.iter().all(|viewer| viewer.has_all_of(1..port.frames)));
        drop(viewers);
        wait(async || port.metric("sessions") == 0).await;
        assert_eq!((port.metric("fell_behind_total"), port.metric("frames_dropped_total")), (0, 0));
    }
}

#[tokio::test]
async fn a_viewer_that_moves_to_another_shard_goes_on() {
    for shards in [1, 2, 4] {
        let mut port = Port::start(shards).await;
        let mut viewers = audience(&mut port, 1, shards).await;
        let socket = if shards > 1 { port.socket_elsewhere(&viewers[0]).await } else { udp() };
        viewers[0].moves(Way::Udp(socket)).await;
        stream(&mut port, &mut viewers, 30).await;
        // What it misses it asks for from there.
        let (handed, repeated) = (port.metric("handed_datagrams_total"), port.metric("repeated_packets_total"));
        viewers[0].lose = 2;
        stream(&mut port, &mut viewers, 30).await;
        assert!(port.metric("repeated_packets_total") >= repeated + 2);
        assert_eq!(port.metric("handed_datagrams_total") > handed, shards > 1);
        assert_eq!(port.metric("handed_lost_total"), 0);
    }
}

#[tokio::test]
async fn ice_is_restarted_and_a_session_closed_wherever_it_is() {
    for shards in [1, 2, 4] {
        let mut port = Port::start(shards).await;
        let mut viewers = audience(&mut port, 4, shards).await;
        for viewer in &mut viewers {
            let body = "a=ice-ufrag:efgh\r\na=ice-pwd:ABCDEFGHIJKLMNOPQRSTUV\r\n";
            let control = viewer.session.control();
            let restarted = control.patch(Some("application/trickle-ice-sdpfrag"), Some("*"), body.as_bytes()).await;
            let restarted = restarted.unwrap().expect("other credentials");
            assert_eq!(restarted.ufrag, control.ufrag());
            viewer.pwd = line(&restarted.fragment, "a=ice-pwd:");
            for _ in 0..4 {
                viewer.moves(Way::Udp(udp())).await;
            }
        }
        stream(&mut port, &mut viewers, 10).await;
        viewers[0].session.control().close();
        viewers[1].peer.close().unwrap();
        for (at, reason) in [Closed::ByUs, Closed::ByPeer].into_iter().enumerate() {
            viewers[at].turn();
            let told = async {
                loop {
                    match viewers[at].session.event().await {
                        Some(Event::Closed(told)) => return told,
                        Some(_) => {}
                        None => panic!("it does not say why"),
                    }
                }
            };
            assert_eq!(tokio::time::timeout(PATIENCE, told).await.unwrap(), reason);
        }
        wait(async || port.metric("sessions") == 2).await;
        stream(&mut port, &mut viewers[2..], 10).await;
    }
}

#[tokio::test]
async fn connections_serve_whichever_shard_took_them() {
    for shards in [1, 2, 4] {
        let mut port = Port::start(shards).await;
        let mut viewers = audience(&mut port, 1, shards).await;
        viewers.push(port.watch(tcp(&port)).await);
        // From the keyframe on that is there.
        stream(&mut port, &mut viewers, 2).await;
        stream(&mut port, &mut viewers, 30).await;
        // From UDP to one connection after another, and back when they are gone.
        for _ in 0..6 {
            let way = tcp(&port);
            viewers[0].moves(way).await;
            stream(&mut port, &mut viewers, 10).await;
        }
        assert_eq!(port.metric("sessions"), 2);
        viewers[0].moves(Way::Udp(udp())).await;
        stream(&mut port, &mut viewers, 10).await;
        wait(async || port.metric("tcp_connections") == 1).await;
    }
}

#[tokio::test]
async fn a_keyframe_that_viewers_of_two_shards_wish_for_is_asked_for_once() {
    for shards in [1, 2] {
        let mut port = Port::start(shards).await;
        let mut viewers = audience(&mut port, 4, shards).await;
        // A new track: nobody has a keyframe of it.
        port.track = port.engine.outgoing();
        viewers.iter().for_each(|viewer| viewer.session.control().select(&port.track, false));
        let asked = async |wait| tokio::time::timeout(wait, port.track.keyframe_wanted()).await.is_ok();
        assert!(asked(PATIENCE).await);
        assert!(!asked(300 * MS).await, "{shards} shards: once is enough");
        port.push(true);
        stream(&mut port, &mut viewers, 10).await;
    }
}

/// 500 sessions may be open, 125 of them unseen: who never shows up makes room for who does.
#[tokio::test]
async fn offers_of_nobody_take_no_place_of_those_who_watch() {
    for shards in [1, 2] {
        let mut port = Port::start(shards).await;
        let mut viewers = audience(&mut port, 2, shards).await;
        let mut nobody = Vec::new();
        for _ in 0..300 {
            nobody.push(port.watch(Way::Udp(udp())).await);
        }
        wait(async || port.metric("sessions") == 2 + 125).await;
        let crowded_out = nobody[0].session.event().await;
        assert!(matches!(crowded_out, Some(Event::Closed(Closed::CrowdedOut))), "{crowded_out:?}");
        stream(&mut port, &mut viewers, 10).await;
        viewers.push(port.watch(Way::Udp(udp())).await);
        stream(&mut port, &mut viewers, 10).await;
    }
}
