//! Recorded publishers, their bytes cut in every way: the session must say the same events, to the byte.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use ingest::rtmp::session::{Deadlines, Event, Output, Session};

const FFMPEG: &[u8] = include_bytes!("../testdata/ffmpeg-5.1.9.bin");
const ENHANCED: &[u8] = include_bytes!("../testdata/ffmpeg-9.0.2-enhanced.bin");
const GSTREAMER: &[u8] = include_bytes!("../testdata/gstreamer-1.22.0-rtmp2sink.bin");
const OBS: &[u8] = include_bytes!("../testdata/obs-29.0.2.bin");

/// Everything a session says but its answers' bytes, whose acknowledgements depend on how much came at once.
#[derive(Debug, PartialEq)]
struct Said {
    events: usize,
    hash: u64,
}

fn feed<'a>(now: Instant, pieces: impl IntoIterator<Item = &'a [u8]>) -> Said {
    let mut session = Session::new(now, 1, Deadlines::default());
    let (mut events, mut hasher) = (0, DefaultHasher::new());
    for piece in pieces {
        session.handle_input(now, piece);
        while let Some(output) = session.poll_output() {
            let Output::Event(event) = output else { continue };
            events += 1;
            match event {
                Event::PublishRequested { app, key } => {
                    (app, key.expose()).hash(&mut hasher);
                    session.accept(now);
                }
                Event::Announced(announcement) => format!("{announcement:?}").hash(&mut hasher),
                Event::Sample(sample) => {
                    let track = format!("{:?}", sample.track);
                    let times = (sample.pts.as_micros(), sample.dts.as_micros(), sample.duration);
                    (track, times, sample.keyframe, &sample.payload[..]).hash(&mut hasher);
                }
                Event::Closed(reason) => reason.to_string().hash(&mut hasher),
            }
        }
    }
    Said { events, hash: hasher.finish() }
}

#[test]
fn equal_pieces_of_any_size_say_the_same() {
    let now = Instant::now();
    for (name, recorded) in [("ffmpeg", FFMPEG), ("gstreamer", GSTREAMER), ("obs", OBS), ("enhanced", ENHANCED)] {
        let whole = feed(now, [recorded]);
        assert!(whole.events > 100, "{name}: {whole:?}");
        for size in [1, 2, 3, 7, 127, 128, 129, 1536, 4096] {
            assert_eq!(feed(now, recorded.chunks(size)), whole, "{name} in pieces of {size}");
        }
    }
}

#[test]
fn a_cut_at_any_offset_says_the_same() {
    let now = Instant::now();
    let whole = feed(now, [FFMPEG]);
    for at in 1..FFMPEG.len() {
        assert_eq!(feed(now, <[&[u8]; 2]>::from(FFMPEG.split_at(at))), whole, "cut at {at}");
    }
}
