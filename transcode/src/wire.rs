//! What `codecast` and `codecast-transcode` say to each other over the child's standard input and output.
//!
//! A frame is its length (4 bytes, big-endian, of all that follows), the version, a tag, and the message's fields in
//! order. `encode` keeps a payload apart, so that media is not copied; a `Reader` takes bytes as they come and gives
//! whole messages. Either side may be broken: nothing here panics, and no frame is longer than `FRAME_BYTES_MAX`.

pub mod receive;

use std::{marker::PhantomData, sync::Arc};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use media_core::{
    Parameters, Rung, Timescale, Timestamp, Track, TrackId,
    codec::{aac, av1, h264, hevc, opus},
    ladder::{Pace, Setting},
    stream::Made,
};

/// Both programs are installed together; a pair that differs must say so and not guess.
pub const VERSION: u8 = 3;
/// The largest picture of 8K intra-only video fits; a length above it is a broken peer.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Longest text in a message: a sentence.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// How much is read at once, where there is as much.
const READ_BYTES: usize = 16 << 10;
/// Shorter frames are copied out of what was read: a packet of sound that stays in a stream's window for seconds would
/// otherwise keep all that was read with it.
const OWN_BYTES_MAX: usize = READ_BYTES / 2;

/// The version, the tag and the lane.
const FRAME_BYTES_MIN: usize = 3;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("codecast-transcode speaks version {0} of the protocol, this is {VERSION}: install the two programs of one release")]
    Version(u8),
    #[error("a frame of {0} bytes, at most {FRAME_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("a frame is cut short")]
    Short,
    #[error("a frame with the unknown tag {0}")]
    Tag(u8),
    #[error("a frame whose {0} cannot be read")]
    Field(&'static str),
}

/// A way through the child with its own input: one for each kind of sound, and some for pictures. Everything that is made
/// of a picture goes one way, decoded once; what is asked for later catches up on a way of its own first.
pub type LaneId = u8;
pub const OPUS_LANE: LaneId = 0;
pub const AAC_LANE: LaneId = 1;
/// One that lives, and five that catch up with it: each decodes by itself for some seconds.
pub const PICTURE_LANES: std::ops::Range<LaneId> = 2..THUMBNAIL_LANE;
/// Gets keyframes alone, and makes a JPEG of each.
pub const THUMBNAIL_LANE: LaneId = 8;
pub const LANES: usize = 9;

/// One coded unit on its way to or from the encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Coded {
    pub pts: Timestamp,
    pub dts: Timestamp,
    /// Ticks; 0 where only the next one tells.
    pub duration: u32,
    pub keyframe: bool,
    /// A segment begins with it.
    pub cut: bool,
    /// It has just come: where there is too much of it, some may be left out.
    pub live: bool,
    pub payload: Bytes,
}

/// How an output is to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Bits a second; 0 leaves it to what the source is measured to have.
    pub bitrate: u32,
    /// What the publisher says of its own bits a second; 0 where it says nothing.
    pub announced_bitrate: u32,
    /// Frames a second for the encoder's rate control where the parameters do not tell; 0 is unknown.
    pub frame_rate: f64,
    /// Everything up to this time is already made: output begins behind it.
    pub after: Option<Timestamp>,
    /// Of a picture.
    pub picture: Picture,
}

/// How a picture is made of the source's (`media_core::Rung`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its shorter side, at most.
    pub lines: u32,
    /// Every how many-th picture is taken, counted from each cut.
    pub divisor: u32,
    /// The same while little of it changes.
    pub slow_divisor: u32,
    /// Pictures of the source in a Part: keyframes between cuts open one.
    pub in_part: u32,
    /// How much of the bit rate may come at once.
    pub buffer_ms: u32,
    /// Between cuts, keyframes come so far apart; 0: where the source's are.
    pub gop_ms: u32,
    /// A segment without a keyframe of the source is cut at the last border of Parts within so much; 0: never.
    pub segment_ms_max: u32,
    /// Pictures are given at the rate that is wished whether the source has any or not, and a segment begins at each multiple of
    /// this on the source's clock; 0: as the source has them.
    pub cut_every_ms: u32,
}

/// From the server to its child. A lane never waits for another.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// The lane makes this, too, from the next Sample on.
    Make(LaneId, Made, Wish),
    /// It does so no longer.
    Leave(LaneId, Made),
    /// What the Samples that follow were coded under.
    Track(LaneId, Arc<Track>),
    Sample(LaneId, Coded),
    /// The run is over: give out what is held back, forget the rest, then answer `Ended`.
    End(LaneId),
    /// The next picture shall be a keyframe.
    Keyframe(LaneId, Made),
}

/// From the child.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// First of all. What cannot be made here, and the element that it lacks.
    Hello {
        missing: Vec<(Made, String)>,
    },
    Track(LaneId, Made, Arc<Track>),
    Sample(LaneId, Made, Coded),
    /// A JPEG.
    Thumbnail(LaneId, Bytes),
    /// So many Samples of the lane have left its queue.
    Consumed(LaneId, u32),
    /// Nothing more comes of the run that was ended.
    Ended(LaneId),
    /// Nothing can be made of the track that the lane was given. What is missing, as a sentence.
    Refused(LaneId, String),
    /// So many pictures were left out: the encoder was too slow for them.
    Shed(Made, u32),
    /// For the log.
    Note(String),
}

/// A frame as two buffers to be written one after the other.
#[derive(Clone, Debug)]
pub struct Frame {
    pub head: Bytes,
    pub payload: Bytes,
}

impl Default for Picture {
    /// As the source's.
    fn default() -> Self {
        let (lines, divisor, slow_divisor, in_part) = (u32::MAX, 1, 1, 1);
        let (buffer_ms, gop_ms, segment_ms_max, cut_every_ms) = (400, 0, 0, 0);
        Self { lines, divisor, slow_divisor, in_part, buffer_ms, gop_ms, segment_ms_max, cut_every_ms }
    }
}

impl From<&Rung> for Picture {
    fn from(rung: &Rung) -> Self {
        let Rung { setting, divisor, in_part, segment_ms_max, cut_every_ms, .. } = *rung;
        let (divisor, in_part) = (divisor.max(1), in_part.max(1));
        let Setting { lines, buffer_ms, gop_ms, .. } = setting;
        let slow_divisor = if setting.pace == Pace::Auto { setting.slow_divisor(rung.source_rate, in_part) } else { divisor };
        Self { lines, divisor, slow_divisor, in_part, buffer_ms, gop_ms, segment_ms_max, cut_every_ms }
    }
}

impl Frame {
    pub fn into_buf(self) -> bytes::buf::Chain<Bytes, Bytes> {
        self.head.chain(self.payload)
    }
}

pub trait Message: Sized {
    /// Its tag and fields, without a payload, and the payload.
    fn write(&self, fields: &mut BytesMut) -> Bytes;
    fn read(tag: u8, fields: Bytes) -> Result<Self, Error>;

    fn encode(&self) -> Frame {
        let mut head = BytesMut::with_capacity(64);
        head.put_u32(0);
        head.put_u8(VERSION);
        let payload = self.write(&mut head);
        let length = u32::try_from(head.len() - 4 + payload.len()).unwrap_or(u32::MAX);
        head[..4].copy_from_slice(&length.to_be_bytes());
        Frame { head: head.freeze(), payload }
    }
}

/// Whole messages out of bytes as they come.
#[derive(Debug)]
pub struct Reader<M> {
    unread: BytesMut,
    message: PhantomData<M>,
}

impl<M> Default for Reader<M> {
    fn default() -> Self {
        Self { unread: BytesMut::new(), message: PhantomData }
    }
}

impl<M: Message> Reader<M> {
    /// Where to read into. It holds at most one frame and what came with it.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.unread.reserve(READ_BYTES);
        &mut self.unread
    }

    /// The next message, once all of it is there. After an error the peer is not to be read any further.
    pub fn next_message(&mut self) -> Result<Option<M>, Error> {
        let Some(length) = self.unread.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Error::TooLong(length));
        }
        if length < FRAME_BYTES_MIN - 1 {
            return Err(Error::Short);
        }
        if self.unread.len() < 4 + length {
            self.unread.reserve(4 + length - self.unread.len());
            return Ok(None);
        }
        let frame = self.unread.split_to(4 + length);
        let mut frame = if frame.len() <= OWN_BYTES_MAX { Bytes::copy_from_slice(&frame) } else { frame.freeze() };
        frame.advance(4);
        let version = frame.get_u8();
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let tag = frame.get_u8();
        M::read(tag, frame).map(Some)
    }
}

impl Message for Order {
    fn write(&self, fields: &mut BytesMut) -> Bytes {
        match self {
            Self::Make(lane, made, wish) => {
                put(fields, 1, *lane);
                fields.put_u8(made.index() as u8);
                put_wish(fields, wish);
                Bytes::new()
            }
            Self::Track(lane, track) => {
                put(fields, 2, *lane);
                put_track(fields, track)
            }
            Self::Sample(lane, coded) => {
                put(fields, 3, *lane);
                put_coded(fields, coded)
            }
            Self::End(lane) => put(fields, 4, *lane),
            Self::Keyframe(lane, made) => put_pair(fields, 5, *lane, *made),
            Self::Leave(lane, made) => put_pair(fields, 6, *lane, *made),
        }
    }

    fn read(tag: u8, mut fields: Bytes) -> Result<Self, Error> {
        let lane = take_lane(&mut fields)?;
        Ok(match tag {
            1 => Self::Make(lane, take_made(&mut fields)?, take_wish(&mut fields)?),
            2 => Self::Track(lane, take_track(fields)?.into()),
            3 => Self::Sample(lane, take_coded(fields)?),
            4 => Self::End(lane),
            5 => Self::Keyframe(lane, take_made(&mut fields)?),
            6 => Self::Leave(lane, take_made(&mut fields)?),
            _ => return Err(Error::Tag(tag)),
        })
    }
}

impl Message for Report {
    fn write(&self, fields: &mut BytesMut) -> Bytes {
        match self {
            Self::Hello { missing } => {
                fields.put_u8(16);
                fields.put_u8(u8::try_from(missing.len()).unwrap_or(u8::MAX));
                for (made, element) in missing.iter().take(usize::from(u8::MAX)) {
                    fields.put_u8(made.index() as u8);
                    put_text(fields, element);
                }
                Bytes::new()
            }
            Self::Track(lane, made, track) => {
                put_pair(fields, 22, *lane, *made);
                put_track(fields, track)
            }
            Self::Sample(lane, made, coded) => {
                put_pair(fields, 23, *lane, *made);
                put_coded(fields, coded)
            }
            Self::Thumbnail(lane, jpeg) => {
                put(fields, 24, *lane);
                jpeg.clone()
            }
            Self::Consumed(lane, samples) => {
                put(fields, 17, *lane);
                fields.put_u32(*samples);
                Bytes::new()
            }
            Self::Ended(lane) => put(fields, 18, *lane),
            Self::Refused(lane, sentence) => {
                put(fields, 20, *lane);
                put_text(fields, sentence);
                Bytes::new()
            }
            Self::Shed(made, pictures) => {
                fields.put_u8(21);
                fields.put_u8(made.index() as u8);
                fields.put_u32(*pictures);
                Bytes::new()
            }
            Self::Note(text) => {
                fields.put_u8(19);
                put_text(fields, text);
                Bytes::new()
            }
        }
    }

    fn read(tag: u8, mut fields: Bytes) -> Result<Self, Error> {
        Ok(match tag {
            16 => {
                let count = fields.try_get_u8().map_err(|_| Error::Short)?;
                let missing = (0..count).map(|_| Ok((take_made(&mut fields)?, take_text(&mut fields)?)));
                Self::Hello { missing: missing.collect::<Result<_, _>>()? }
            }
            17 => Self::Consumed(take_lane(&mut fields)?, take_u32(&mut fields)?),
            18 => Self::Ended(take_lane(&mut fields)?),
            19 => Self::Note(take_text(&mut fields)?),
            20 => Self::Refused(take_lane(&mut fields)?, take_text(&mut fields)?),
            21 => Self::Shed(take_made(&mut fields)?, take_u32(&mut fields)?),
            22 => Self::Track(take_lane(&mut fields)?, take_made(&mut fields)?, take_track(fields)?.into()),
            23 => Self::Sample(take_lane(&mut fields)?, take_made(&mut fields)?, take_coded(fields)?),
            24 => Self::Thumbnail(take_lane(&mut fields)?, fields),
            _ => return Err(Error::Tag(tag)),
        })
    }
}

fn put(fields: &mut BytesMut, tag: u8, lane: LaneId) -> Bytes {
    fields.put_u8(tag);
    fields.put_u8(lane);
    Bytes::new()
}

fn put_pair(fields: &mut BytesMut, tag: u8, lane: LaneId, made: Made) -> Bytes {
    put(fields, tag, lane);
    fields.put_u8(made.index() as u8);
    Bytes::new()
}

fn put_wish(fields: &mut BytesMut, wish: &Wish) {
    fields.put_u32(wish.bitrate);
    fields.put_u32(wish.announced_bitrate);
    fields.put_f64(wish.frame_rate);
    put_timestamp(fields, wish.after.unwrap_or(Timestamp::ZERO));
    fields.put_u8(wish.after.is_some().into());
    let Picture { lines, divisor, slow_divisor, in_part, buffer_ms, gop_ms, segment_ms_max, cut_every_ms } = wish.picture;
    let numbers = [lines, divisor, slow_divisor, in_part, buffer_ms, gop_ms, segment_ms_max, cut_every_ms];
    numbers.into_iter().for_each(|number| fields.put_u32(number));
}

fn put_timestamp(fields: &mut BytesMut, timestamp: Timestamp) {
    fields.put_i64(timestamp.ticks);
    fields.put_u32(timestamp.scale.ticks_per_second());
}

fn put_text(fields: &mut BytesMut, text: &str) {
    let text = &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    fields.put_u16(text.len() as u16);
    fields.put_slice(text);
}

fn put_track(fields: &mut BytesMut, track: &Track) -> Bytes {
    fields.put_u32(track.timescale.ticks_per_second());
    let (codec, parameters) = match &track.parameters {
        Parameters::H264(p) => (0, p.record.clone()),
        Parameters::Aac(p) => (1, p.config.clone()),
        Parameters::Opus(p) => (2, Bytes::copy_from_slice(&[p.channels])),
        Parameters::Hevc(p) => (3, p.record.clone()),
        Parameters::Av1(p) => (4, p.record.clone()),
    };
    fields.put_u8(codec);
    parameters
}

fn put_coded(fields: &mut BytesMut, coded: &Coded) -> Bytes {
    put_timestamp(fields, coded.pts);
    fields.put_i64(coded.dts.ticks_in(coded.pts.scale));
    fields.put_u32(coded.duration);
    fields.put_u8(u8::from(coded.keyframe) | u8::from(coded.cut) << 1 | u8::from(coded.live) << 2);
    coded.payload.clone()
}

fn take_lane(fields: &mut Bytes) -> Result<LaneId, Error> {
    let number = fields.try_get_u8().map_err(|_| Error::Short)?;
    if usize::from(number) < LANES { Ok(number) } else { Err(Error::Field("lane")) }
}

fn take_u32(fields: &mut Bytes) -> Result<u32, Error> {
    fields.try_get_u32().map_err(|_| Error::Short)
}

fn take_made(fields: &mut Bytes) -> Result<Made, Error> {
    let number = fields.try_get_u8().map_err(|_| Error::Short)?;
    Made::ALL.get(usize::from(number)).copied().ok_or(Error::Field("output"))
}

fn take_timestamp(fields: &mut Bytes) -> Result<Timestamp, Error> {
    let ticks = fields.try_get_i64().map_err(|_| Error::Short)?;
    Ok(Timestamp::new(ticks, take_timescale(fields)?))
}

fn take_timescale(fields: &mut Bytes) -> Result<Timescale, Error> {
    let ticks = take_u32(fields)?;
    Timescale::new(ticks).ok_or(Error::Field("timescale"))
}

fn take_text(fields: &mut Bytes) -> Result<String, Error> {
    let length = usize::from(fields.try_get_u16().map_err(|_| Error::Short)?);
    if length > TEXT_BYTES_MAX || length > fields.len() {
        return Err(Error::Field("text"));
    }
    Ok(String::from_utf8_lossy(&fields.split_to(length)).into_owned())
}

fn take_wish(fields: &mut Bytes) -> Result<Wish, Error> {
    let (bitrate, announced_bitrate) = (take_u32(fields)?, take_u32(fields)?);
    let frame_rate = fields.try_get_f64().map_err(|_| Error::Short)?;
    let after = take_timestamp(fields)?;
    let has_after = fields.try_get_u8().map_err(|_| Error::Short)? != 0;
    let mut number = || take_u32(fields);
    let (lines, divisor, slow_divisor, in_part) = (number()?, number()?, number()?, number()?);
    let (buffer_ms, gop_ms, segment_ms_max, cut_every_ms) = (number()?, number()?, number()?, number()?);
    if divisor == 0 || slow_divisor == 0 || in_part == 0 {
        return Err(Error::Field("picture"));
    }
    let picture = Picture { lines, divisor, slow_divisor, in_part, buffer_ms, gop_ms, segment_ms_max, cut_every_ms };
    Ok(Wish { bitrate, announced_bitrate, frame_rate, after: has_after.then_some(after), picture })
}

fn take_track(mut fields: Bytes) -> Result<Track, Error> {
    let timescale = take_timescale(&mut fields)?;
    let codec = fields.try_get_u8().map_err(|_| Error::Short)?;
    let (id, parameters) = match codec {
        0 => (TrackId::VIDEO, h264::Parameters::parse(fields).ok().map(Parameters::H264)),
        1 => (TrackId::AUDIO, aac::Parameters::parse(fields).ok().map(Parameters::Aac)),
        2 => (TrackId::AUDIO, opus_parameters(&fields)),
        3 => (TrackId::VIDEO, hevc::Parameters::parse(fields).ok().map(Parameters::Hevc)),
        4 => (TrackId::VIDEO, av1::Parameters::parse(fields).ok().map(Parameters::Av1)),
        _ => return Err(Error::Field("codec")),
    };
    Ok(Track { id, timescale, parameters: parameters.ok_or(Error::Field("parameters"))? })
}

fn opus_parameters(fields: &[u8]) -> Option<Parameters> {
    let channels = *fields.first()?;
    (1..=2).contains(&channels).then_some(Parameters::Opus(opus::Parameters { channels }))
}

fn take_coded(mut fields: Bytes) -> Result<Coded, Error> {
    let pts = take_timestamp(&mut fields)?;
    let dts = Timestamp::new(fields.try_get_i64().map_err(|_| Error::Short)?, pts.scale);
    let duration = take_u32(&mut fields)?;
    let flags = fields.try_get_u8().map_err(|_| Error::Short)?;
    let [keyframe, cut, live] = [0, 1, 2].map(|bit| flags >> bit & 1 == 1);
    Ok(Coded { pts, dts, duration, keyframe, cut, live, payload: fields })
}

/// For the fuzz target: bytes of either side, at once and cut in two, must say the same; what is read is written back
/// the same.
pub fn fuzz(data: &[u8]) {
    fuzz_as::<Order>(data);
    fuzz_as::<Report>(data);
    fuzz_as::<receive::Listen>(data);
    fuzz_as::<receive::Heard>(data);
}

fn fuzz_as<M: Message + std::fmt::Debug>(data: &[u8]) {
    let (whole, error) = read_all::<M>(&[data]);
    let (first, second) = data.split_at(data.first().map_or(0, |&at| usize::from(at).min(data.len())));
    let (halves, halves_error) = read_all::<M>(&[first, second]);
    assert_eq!(format!("{whole:?}{error:?}"), format!("{halves:?}{halves_error:?}"));
    for message in whole {
        let frame = message.encode();
        let (again, error) = read_all::<M>(&[&frame.head, &frame.payload]);
        assert_eq!((format!("{again:?}"), error), (format!("[{message:?}]"), None));
    }
}

fn read_all<M: Message>(pieces: &[&[u8]]) -> (Vec<M>, Option<Error>) {
    let (mut reader, mut messages) = (Reader::<M>::default(), Vec::new());
    for piece in pieces {
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(bytes: &'static [u8]) -> Coded {
        let pts = Timestamp::new(-7, Timescale::new(90_000).unwrap());
        Coded { pts, dts: pts, duration: 960, keyframe: true, cut: true, live: false, payload: Bytes::from_static(bytes) }
    }

    fn opus_track() -> Track {
        let parameters = Parameters::Opus(opus::Parameters { channels: 2 });
        Track { id: TrackId::AUDIO, timescale: Timescale::new(48_000).unwrap(), parameters }
    }

    /// ffmpeg 5.1.9, `-f lavfi -i testsrc=s=640x360:r=30`: the hvcC box of libx265 (`-preset ultrafast -tune zerolatency
    /// -x265-params info=0`), and the av1C box of libaom-av1 (`-usage realtime`).
    const HVCC: &[u8] = b"\x01\x01\x60\x00\x00\x00\x90\x00\x00\x00\x00\x00\x3f\xf0\x00\xfc\xfd\xf8\xf8\x00\x00\x0f\x03\xa0\x00\x01\x00\x18\
        \x40\x01\x0c\x01\xff\xff\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3f\xba\x02\x40\xa1\x00\x01\x00\x2b\
        \x42\x01\x01\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3f\xa0\x05\x02\x01\x71\xf2\xe5\xba\x4a\x4c\x2f\x01\x68\x08\
        \x00\x00\x03\x00\x08\x00\x00\x03\x00\xf0\x40\xa2\x00\x01\x00\x06\x44\x01\xc0\x71\x83\x12";
    const AV1C: &[u8] = b"\x81\x01\x0c\x00\x0a\x0b\x00\x00\x00\x0c\xc4\xff\x67\x36\xbe\x40\x10";

    fn picture_track(parameters: Parameters) -> Arc<Track> {
        Track { id: TrackId::VIDEO, timescale: Timescale::new(90_000).unwrap(), parameters }.into()
    }

    fn orders() -> Vec<Order> {
        let aac = aac::Parameters::parse(Bytes::from_static(&[0x11, 0x90])).unwrap();
        let hevc = hevc::Parameters::parse(Bytes::from_static(HVCC)).unwrap();
        let av1 = av1::Parameters::parse(Bytes::from_static(AV1C)).unwrap();
        let (lines, divisor, slow_divisor, in_part) = (720, 3, 6, 6);
        let (buffer_ms, gop_ms, segment_ms_max, cut_every_ms) = (2000, 4000, 4400, 4000);
        let picture = Picture { lines, divisor, slow_divisor, in_part, buffer_ms, gop_ms, segment_ms_max, cut_every_ms };
        let after = Some(Timestamp::from_millis(-4));
        let wish = Wish { bitrate: 1, announced_bitrate: 2, frame_rate: 29.97, after, picture };
        vec![
            Order::Make(2, Made::Video, wish.clone()),
            Order::Make(5, Made::Rung(6), wish),
            Order::Make(OPUS_LANE, Made::Opus, Wish::default()),
            Order::Track(OPUS_LANE, Track { parameters: Parameters::Aac(aac), ..opus_track() }.into()),
            Order::Track(2, picture_track(Parameters::Hevc(hevc))),
            Order::Track(2, picture_track(Parameters::Av1(av1))),
            Order::Sample(AAC_LANE, coded(b"abc")),
            Order::Sample(2, coded(b"")),
            Order::End(OPUS_LANE),
            Order::Keyframe(2, Made::Video),
            Order::Leave(5, Made::Rung(6)),
            Order::Make(THUMBNAIL_LANE, Made::Thumbnail, Wish::default()),
        ]
    }

    fn reports() -> Vec<Report> {
        vec![
            Report::Hello { missing: vec![(Made::Video, "x264enc".into()), (Made::Aac, "avenc_aac".into())] },
            Report::Track(OPUS_LANE, Made::Opus, opus_track().into()),
            Report::Sample(3, Made::Rung(1), coded(b"picture")),
            Report::Thumbnail(THUMBNAIL_LANE, Bytes::from_static(b"\xff\xd8\xff\xd9")),
            Report::Consumed(2, 3),
            Report::Ended(2),
            Report::Refused(2, "no decoder of AV1 is installed".into()),
            Report::Shed(Made::Rung(2), 7),
            Report::Note("ein Wort für das Protokoll".into()),
        ]
    }

    fn bytes_of<M: Message>(messages: &[M]) -> Vec<u8> {
        messages
            .iter()
            .flat_map(|m| {
                let f = m.encode();
                [f.head, f.payload].concat()
            })
            .collect()
    }

    #[test]
    fn a_message_keeps_no_more_than_itself() {
        let coded = |bytes: usize| Coded {
            pts: Timestamp::ZERO,
            dts: Timestamp::ZERO,
            duration: 960,
            keyframe: true,
            cut: false,
            live: true,
            payload: Bytes::from(vec![7; bytes]),
        };
        let mut reader = Reader::<Order>::default();
        for bytes in [300, 300, OWN_BYTES_MAX / 2] {
            reader.buffer().put(Order::Sample(OPUS_LANE, coded(bytes)).encode().into_buf());
        }
        let mut read = 0;
        while let Some(Order::Sample(_, coded)) = reader.next_message().unwrap() {
            assert!(coded.payload.is_unique(), "{} bytes share what was read", coded.payload.len());
            read += 1;
        }
        assert_eq!(read, 3);
    }

    #[test]
    fn messages_survive_any_cut() {
        fn check<M: Message + PartialEq + std::fmt::Debug>(messages: Vec<M>) {
            let bytes = bytes_of(&messages);
            for at in 0..=bytes.len() {
                assert_eq!(
                    read_all::<M>(&[&bytes[..at], &bytes[at..]]),
                    (messages.iter().map(clone).collect(), None),
                    "cut at {at}"
                );
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read_all::<M>(&single), (messages, None));
        }
        fn clone<M: Message>(message: &M) -> M {
            let frame = message.encode();
            read_all::<M>(&[&frame.head, &frame.payload]).0.remove(0)
        }
        check(orders());
        check(reports());
    }

    #[test]
    fn broken_peers_are_refused() {
        let check = |bytes: &[u8], error| assert_eq!(read_all::<Order>(&[bytes]).1, Some(error), "{bytes:?}");
        check(&[0xff, 0, 0, 0], Error::TooLong(0xff00_0000));
        check(&[0, 0, 0, 1, 1], Error::Short);
        check(&[0, 0, 0, 3, 9, 4, 0], Error::Version(9));
        check(&[0, 0, 0, 3, 3, 4, LANES as u8], Error::Field("lane"));
        check(&[0, 0, 0, 4, 3, 5, 2, 10], Error::Field("output"));
        check(&[0, 0, 0, 3, 3, 99, 0], Error::Tag(99));
        check(&[0, 0, 0, 3, 3, 3, 0], Error::Short);
        check(&[0, 0, 0, 8, 3, 2, 0, 0, 0, 0, 0, 2], Error::Field("timescale"));
        check(&[0, 0, 0, 9, 3, 2, 0, 0, 0, 0, 9, 2, 7], Error::Field("parameters"));
    }

    #[test]
    fn damaged_bytes_never_panic() {
        for bytes in [bytes_of(&orders()), bytes_of(&reports())] {
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[at] = value;
                    fuzz(&damaged);
                }
            }
        }
    }
}
