//! Scripts that get far, and a short run of random ones.

use super::*;

/// A script that gets far: without it the target would prove nothing.
#[test]
fn a_script_reaches_media_both_ways() {
    let now = Instant::now();
    for variant in 0..16 {
        let mut world = World::new(now, variant);
        for at in [PUBLISHER, VIEWER] {
            let peer = (at as u8) << 4;
            world.act(peer | 1, at as u8 + 1, &[]);
            world.act(peer | 3, at as u8 + 1, &[]);
            assert!(world.peers[at].connected && world.peers[at].srtp.is_some(), "{at} is connected");
        }
        world.act(4, 1, &[0x20, 0xf8]);
        world.act(7, 0x11 + 0x20, &[0x65; 100]);
        world.pass(50 * MS);
        world.act(7, 0x21, &[0x41; 100]);
        world.pass(1000 * MS);
        world.end();
    }
}

/// A short run of what the fuzzer does for hours: both peers come, and anything may happen then.
#[test]
fn random_scripts_hold() {
    let now = Instant::now();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..400 {
        let mut data = vec![round as u8, 0x01, 1, 0, 0, 0x03, 1, 0, 0, 0x11, 2, 0, 0, 0x13, 2, 0, 0];
        for _ in 0..random() % 40 {
            let length = (random() % 20) as u8;
            let paths = if round % 2 == 0 { 255 } else { 8 };
            data.extend([random() as u8, (random() % paths) as u8, (random() % 60) as u8, length]);
            data.extend((0..length).map(|_| random() as u8));
        }
        fuzz(now, &data);
    }
}
