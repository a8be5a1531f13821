//! The publisher against a plain server of the test's own: what it sends, and how it takes a no.
//! Needs ffmpeg, as the publisher does.

#![expect(clippy::unwrap_used, reason = "in a test a failed step is the failure")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use timed_publisher::{
    encoder::{self, Rate},
    live::{self, Settings},
    picture::Size,
    report::End,
    rtmp::{
        Error, Target,
        amf0::{self, Writer},
        chunk::{Header, Message, Reader, write_message},
    },
    timecode,
};

const SIZE: Size = Size { width: 320, height: 180 };

/// Takes one publisher, answers as a server does, and returns all media it was sent.
fn serve(verdict: Writer) -> (Target, JoinHandle<Vec<Message>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtmp://{}/live", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut hello = [0; 1537];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&[&hello[..], &hello[1..]].concat()).unwrap();
        stream.read_exact(&mut hello[1..]).unwrap();
        converse(&mut stream, &verdict)
    });
    (Target::new(&url, "a-key").unwrap(), server)
}

fn converse(stream: &mut TcpStream, verdict: &Writer) -> Vec<Message> {
    let (mut reader, mut bytes, mut media) = (Reader::default(), vec![0; 64 << 10], Vec::new());
    loop {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return media,
            Ok(n) => reader.push(&bytes[..n]),
        }
        while let Some(message) = reader.next_message().unwrap() {
            match message.message_type {
                20 => answer(stream, &message, verdict),
                8 | 9 => media.push(message),
                _ => {}
            }
        }
    }
}

fn answer(stream: &mut TcpStream, message: &Message, verdict: &Writer) {
    let command = amf0::Command::parse(&message.body).unwrap();
    let body = match command.name.as_str() {
        "publish" => verdict.0.clone(),
        _ => Writer::command("_result", command.transaction).null().number(1.0).0,
    };
    let mut out = Vec::new();
    let header = Header { chunk_stream: 3, message_type: 20, message_stream: 0, timestamp_ms: 0 };
    write_message(&mut out, header, &body, 128);
    let _ = stream.write_all(&out);
}

fn status(level: &str, code: &str, description: &str) -> Writer {
    let fields = [("level", level), ("code", code), ("description", description)];
    Writer::command("onStatus", 0.0).null().object(&fields)
}

fn settings(bframes: bool) -> Settings {
    let rate = Rate { numerator: 30, denominator: 1 };
    let (gop_seconds, preset) = (1.0, "ultrafast".into());
    let encoder = encoder::Settings { size: SIZE, rate, gop_seconds, kbps: 400, preset, bframes };
    Settings { encoder, video: true, audio: true, duration: Duration::from_secs(2) }
}

/// The pictures' brightness, decoded by ffmpeg.
fn decode(flv: Vec<u8>) -> Vec<u8> {
    let mut child = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-f", "flv", "-i", "pipe:0"])
        .args(["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let feeding = thread::spawn(move || input.write_all(&flv).unwrap());
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    output.stdout
}

fn flv(video: &[(u32, &Message)]) -> Vec<u8> {
    let mut out = b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec();
    for (time, message) in video {
        let size = message.body.len() as u32;
        out.push(9);
        out.extend(&size.to_be_bytes()[1..]);
        out.extend([(time >> 16) as u8, (time >> 8) as u8, *time as u8, (time >> 24) as u8, 0, 0, 0]);
        out.extend(&message.body);
        out.extend((11 + size).to_be_bytes());
    }
    out
}

async fn published(bframes: bool) {
    let (target, server) = serve(status("status", "NetStream.Publish.Start", "go"));
    let report = live::publish(&settings(bframes), &target, std::future::pending()).await;
    assert!(matches!(report.end, End::Complete), "{}", report.end);
    let media = server.join().unwrap();
    let video: Vec<&Message> = media.iter().filter(|m| m.message_type == 9).collect();
    assert_eq!(report.video_frames as usize, video.len() - 1, "one header and every frame");
    assert_eq!(report.video_frames + report.skipped_frames, 60);
    assert_eq!(video[1].body[0] >> 4, 1, "the first picture is a keyframe");

    let in_order: Vec<(u32, &Message)> = (0..).map(|n| n * 33).zip(video).collect();
    let pictures = decode(flv(&in_order));
    let times: Vec<u32> = pictures
        .chunks_exact(SIZE.width * SIZE.height)
        .map(|luma| {
            let at = |column: usize, row: usize| luma[(row * 15 + 7) * SIZE.width + column * 16 + 8];
            timecode::read(at).expect("every picture's time can be read")
        })
        .collect();
    assert_eq!(times.len() as u64, report.video_frames);
    let first = timecode::low32(report.started_wall_ms);
    assert!(times[0].abs_diff(first) <= 1, "RTMP time zero is the first picture's");
    assert!(times.windows(2).all(|pair| (32..=200).contains(&pair[1].wrapping_sub(pair[0]))), "{times:?}");
}

#[tokio::test]
async fn every_picture_carries_its_time() {
    published(false).await;
}

#[tokio::test]
async fn with_b_frames_too() {
    published(true).await;
}

#[tokio::test]
async fn a_refusal_comes_with_its_text() {
    let (target, server) = serve(status("error", "NetStream.Publish.BadName", "this key opens no stream"));
    let report = live::publish(&settings(false), &target, std::future::pending()).await;
    let End::Server(Error::Refused { code, description }) = &report.end else { panic!("{}", report.end) };
    assert_eq!((code.as_str(), description.as_str()), ("NetStream.Publish.BadName", "this key opens no stream"));
    assert!(!report.end.to_string().contains("a-key"));
    assert!(server.join().unwrap().is_empty());
}
