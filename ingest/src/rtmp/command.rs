//! NetConnection and NetStream commands (RTMP 1.0, 7.2): reading them, and the replies.

use std::borrow::Cow;

use media_core::Announcement;

use super::amf0::{self, Reader, Value};

/// Longest application or stream name taken, query included.
pub const NAME_BYTES_MAX: usize = 512;
/// Longest name of an encoder kept for the log.
const ENCODER_CHARS_MAX: usize = 80;

/// A command as far as a server of publishers cares.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `app`, without a query or slashes around it.
    Connect {
        app: String,
        dialect: Dialect,
    },
    CreateStream,
    /// releaseStream, FCUnpublish, _checkbw: nothing to do, but the encoder waits for an answer.
    Courtesy,
    FcPublish,
    /// The stream key as the encoder was given it, without a query.
    Publish {
        key: String,
    },
    Play,
    /// deleteStream or closeStream.
    End,
    /// An answer to something: nothing was asked.
    Answer,
    Unknown,
}

/// What the peer says of itself in `connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Nothing of enhanced RTMP. It is answered as before there was one.
    Plain,
    /// It names codecs by FourCC or has extensions (veovera v1 or v2).
    Enhanced {
        /// It takes a request to connect again.
        reconnects: bool,
    },
}

/// A command with the number under which it wants its answer. 0: it wants none.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub command: Command,
    pub transaction: f64,
}

/// Reads a command message (type 20; of type 17 without its first byte).
pub fn read(payload: &[u8]) -> Result<Call, amf0::Error> {
    let mut reader = Reader::new(payload)?;
    let name = reader.next_value()?;
    // Some encoders leave the number out.
    let transaction = reader.next_value()?.and_then(|v| v.as_f64()).unwrap_or(0.0);
    let object = reader.next_value()?;
    let argument = reader.next_value()?;
    while reader.next_value()?.is_some() {} // The limits hold for the whole of it.
    let command = match name.as_ref().and_then(Value::as_str).unwrap_or_default() {
        "connect" => {
            let app = object.as_ref().and_then(|o| o.property("app")).and_then(Value::as_str).unwrap_or_default();
            Command::Connect { app: plain_name(app), dialect: object.as_ref().map_or(Dialect::Plain, dialect) }
        }
        "createStream" => Command::CreateStream,
        "releaseStream" | "FCUnpublish" | "_checkbw" => Command::Courtesy,
        "FCPublish" => Command::FcPublish,
        "publish" => Command::Publish { key: plain_name(argument.as_ref().and_then(Value::as_str).unwrap_or_default()) },
        "play" | "play2" => Command::Play,
        "deleteStream" | "closeStream" => Command::End,
        "_result" | "_error" | "onStatus" => Command::Answer,
        _ => Command::Unknown,
    };
    Ok(Call { command, transaction })
}

fn dialect(object: &Value<'_>) -> Dialect {
    let said = |name| object.property(name).filter(|value| !matches!(value, Value::Null | Value::Undefined));
    if ["fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap", "capsEx"].into_iter().all(|name| said(name).is_none()) {
        return Dialect::Plain;
    }
    // A number from outside: what does not fit becomes the nearest that does.
    let extensions = said("capsEx").and_then(Value::as_f64).unwrap_or(0.0) as u32;
    Dialect::Enhanced { reconnects: extensions & caps::RECONNECT != 0 }
}

/// Without the query that some encoders append, and without slashes around it.
fn plain_name(text: &str) -> String {
    let name = text.split_once('?').map_or(text, |(name, _)| name);
    name.trim_matches('/').to_owned()
}

/// A status for an onStatus command or an answer. `level` is "status" or "error".
#[derive(Debug, Clone, Copy)]
pub struct Status<'a> {
    pub level: &'static str,
    pub code: &'static str,
    pub description: &'a str,
}

impl<'a> Status<'a> {
    pub fn info(code: &'static str, description: &'a str) -> Self {
        Self { level: "status", code, description }
    }

    pub fn error(code: &'static str, description: &'a str) -> Self {
        Self { level: "error", code, description }
    }

    fn properties(&self) -> Vec<(Cow<'a, str>, Value<'a>)> {
        [("level", self.level), ("code", self.code), ("description", self.description)]
            .map(|(name, text)| (Cow::Borrowed(name), Value::text(text)))
            .into()
    }

    fn value(&self) -> Value<'a> {
        Value::Object(self.properties())
    }
}

fn encode(values: &[Value<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    amf0::write_all(&mut out, values);
    out
}

/// What is taken, by FourCC.
const VIDEO_CODECS: [&str; 3] = ["avc1", "hvc1", "av01"];
const AUDIO_CODECS: [&str; 2] = ["mp4a", "Opus"];
/// FourCcInfoMask.CanForward: viewers get it as it came. What the helper program decodes depends on where it runs, and it
/// never codes in what an encoder would ask for, so the other flags would promise too much.
const CAN_FORWARD: f64 = 4.0;

/// CapsExMask.
mod caps {
    pub const RECONNECT: u32 = 1;
    pub const MULTITRACK: u32 = 2;
    pub const MOD_EX: u32 = 4;
    pub const TIMESTAMP_NANO_OFFSET: u32 = 8;
    pub const ALL: u32 = RECONNECT | MULTITRACK | MOD_EX | TIMESTAMP_NANO_OFFSET;
}

/// The answer to `connect`.
pub fn connected(transaction: f64, dialect: Dialect) -> Vec<u8> {
    let offered = || match dialect {
        Dialect::Plain => Vec::new(),
        Dialect::Enhanced { .. } => offered(),
    };
    let mut properties =
        vec![(Cow::Borrowed("fmsVer"), Value::text("FMS/3,5,7,7009")), (Cow::Borrowed("capabilities"), Value::Number(31.0))];
    properties.extend(offered());
    let mut info = Status::info("NetConnection.Connect.Success", "Connection succeeded.").properties();
    info.push((Cow::Borrowed("objectEncoding"), Value::Number(0.0)));
    // Some encoders look for it in the first object, some in the second.
    info.extend(offered());
    encode(&[Value::text("_result"), Value::Number(transaction), Value::Object(properties), Value::Object(info)])
}

/// Only what the ingest really takes: an encoder may choose by it, so never `*`.
fn offered() -> Vec<(Cow<'static, str>, Value<'static>)> {
    let flags = |codecs: &[&'static str]| {
        Value::Object(codecs.iter().map(|codec| (Cow::Borrowed(*codec), Value::Number(CAN_FORWARD))).collect())
    };
    let all = VIDEO_CODECS.iter().chain(&AUDIO_CODECS).map(|codec| Value::text(codec)).collect();
    vec![
        (Cow::Borrowed("fourCcList"), Value::Array(all)),
        (Cow::Borrowed("videoFourCcInfoMap"), flags(&VIDEO_CODECS)),
        (Cow::Borrowed("audioFourCcInfoMap"), flags(&AUDIO_CODECS)),
        (Cow::Borrowed("capsEx"), Value::Number(f64::from(caps::ALL))),
    ]
}

/// `_result` with one value.
pub fn result(transaction: f64, value: Value<'_>) -> Vec<u8> {
    encode(&[Value::text("_result"), Value::Number(transaction), Value::Null, value])
}

pub fn error(transaction: f64, status: Status<'_>) -> Vec<u8> {
    encode(&[Value::text("_error"), Value::Number(transaction), Value::Null, status.value()])
}

pub fn on_status(status: Status<'_>) -> Vec<u8> {
    encode(&[Value::text("onStatus"), Value::Number(0.0), Value::Null, status.value()])
}

pub fn on_fc_publish() -> Vec<u8> {
    let status = Status::info("NetStream.Publish.Start", "FCPublish");
    encode(&[Value::text("onFCPublish"), Value::Number(0.0), Value::Null, status.value()])
}

/// What a data message says of the publisher; `None` when it is not about that.
pub fn read_metadata(payload: &[u8]) -> Result<Option<Announcement>, amf0::Error> {
    let mut reader = Reader::new(payload)?;
    let mut name = reader.next_value()?;
    if name.as_ref().and_then(Value::as_str) == Some("@setDataFrame") {
        name = reader.next_value()?;
    }
    if name.as_ref().and_then(Value::as_str) != Some("onMetaData") {
        return Ok(None);
    }
    Ok(reader.next_value()?.map(|object| announcement(&object)))
}

fn announcement(object: &Value<'_>) -> Announcement {
    let number = |name| object.property(name).and_then(Value::as_f64).filter(|n| n.is_finite() && *n > 0.0);
    let video = number("videodatarate");
    let audio = number("audiodatarate");
    // Kilobits a second, each; the sum only where the larger is known.
    let bitrate = video.or(audio).map(|_| (video.unwrap_or(0.0) + audio.unwrap_or(0.0)) * 1000.0);
    Announcement {
        video: announces(object, "videocodecid") || number("width").is_some(),
        audio: announces(object, "audiocodecid") || number("audiosamplerate").is_some(),
        frame_rate: number("framerate").or(number("videoframerate")).filter(|rate| (0.1..=480.0).contains(rate)),
        bitrate: bitrate.filter(|bits| *bits < 1e10).map(|bits| bits as u64),
        encoder: object.property("encoder").and_then(Value::as_str).map(|text| text.chars().take(ENCODER_CHARS_MAX).collect()),
        ..Announcement::default()
    }
}

/// A codec is announced by its number, by a FourCC as a number, or by its name.
fn announces(object: &Value<'_>, name: &str) -> bool {
    match object.property(name) {
        Some(Value::Number(number)) => *number > 0.0,
        Some(Value::String(text)) => !text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_by_name_and_keep_their_number() {
        let check = |values: &[Value<'_>], command, transaction| {
            assert_eq!(read(&encode(values)), Ok(Call { command, transaction }), "{values:?}");
        };
        let (t, n) = (Value::text, Value::Number);
        let connect = |app| [t("connect"), n(1.0), Value::object([("app", t(app))])];
        let connected = |app: &str| Command::Connect { app: app.into(), dialect: Dialect::Plain };
        check(&connect("live"), connected("live"), 1.0);
        check(&connect("/live/?token=x"), connected("live"), 1.0);
        check(&[t("connect")], connected(""), 0.0);
        let publish = |key| [t("publish"), n(5.0), Value::Null, t(key), t("live")];
        check(&publish("secret"), Command::Publish { key: "secret".into() }, 5.0);
        check(&publish("/secret?token=a?b"), Command::Publish { key: "secret".into() }, 5.0);
        check(&[t("publish"), n(5.0), Value::Null], Command::Publish { key: String::new() }, 5.0);
        check(&[t("FCPublish"), n(-3.5)], Command::FcPublish, -3.5);
        check(&[t("_checkbw"), n(f64::INFINITY)], Command::Courtesy, f64::INFINITY);
        check(&[t("releaseStream"), Value::Null], Command::Courtesy, 0.0);
        check(&[t("deleteStream"), n(0.0), Value::Null, n(1.0)], Command::End, 0.0);
        check(&[t("makeCoffee"), n(9.0)], Command::Unknown, 9.0);
        check(&[n(1.0)], Command::Unknown, 0.0);
        check(&[], Command::Unknown, 0.0);
    }

    #[test]
    fn who_speaks_enhanced_rtmp_is_answered_in_it() {
        let check = |name, value, expected| assert_eq!(dialect(&Value::object([(name, value)])), expected, "{name}");
        let enhanced = |reconnects| Dialect::Enhanced { reconnects };
        check("app", Value::text("live"), Dialect::Plain);
        check("capsEx", Value::Null, Dialect::Plain);
        check("fourCcList", Value::Array(vec![Value::text("hvc1")]), enhanced(false));
        check("videoFourCcInfoMap", Value::object([("*", Value::Number(4.0))]), enhanced(false));
        check("capsEx", Value::Number(3.0), enhanced(true));
        check("capsEx", Value::Number(14.0), enhanced(false));
        check("capsEx", Value::text("reconnect"), enhanced(false));
        check("capsEx", Value::Number(f64::NAN), enhanced(false));
        check("capsEx", Value::Number(-1e300), enhanced(false));

        let answer = connected(1.0, enhanced(true));
        let values = amf0::read_all(&answer).unwrap();
        for object in &values[2..] {
            let names = Value::Array(["avc1", "hvc1", "av01", "mp4a", "Opus"].map(Value::text).into());
            assert_eq!(object.property("fourCcList"), Some(&names));
            assert_eq!(object.property("capsEx"), Some(&Value::Number(15.0)));
            let flag = |map, codec| object.property(map).and_then(|map| map.property(codec)).and_then(Value::as_f64);
            assert_eq!((flag("videoFourCcInfoMap", "hvc1"), flag("audioFourCcInfoMap", "Opus")), (Some(4.0), Some(4.0)));
            assert_eq!((flag("videoFourCcInfoMap", "*"), flag("videoFourCcInfoMap", "vp09")), (None, None));
        }
        assert!(!String::from_utf8_lossy(&connected(1.0, Dialect::Plain)).contains("avc1"));
    }

    #[test]
    fn metadata_gives_hints() {
        let obs = Value::object([
            ("duration", Value::Number(0.0)),
            ("width", Value::Number(1280.0)),
            ("videocodecid", Value::Number(7.0)),
            ("videodatarate", Value::Number(2500.0)),
            ("framerate", Value::Number(30.0)),
            ("audiocodecid", Value::Number(10.0)),
            ("audiodatarate", Value::Number(160.0)),
            ("encoder", Value::text("obs-output module")),
        ]);
        let expected = Announcement {
            video: true,
            audio: true,
            frame_rate: Some(30.0),
            bitrate: Some(2_660_000),
            encoder: Some("obs-output module".into()),
            ..Announcement::default()
        };
        let bytes = encode(&[Value::text("@setDataFrame"), Value::text("onMetaData"), obs.clone()]);
        assert_eq!(read_metadata(&bytes), Ok(Some(expected.clone())));
        assert_eq!(read_metadata(&encode(&[Value::text("onMetaData"), obs])), Ok(Some(expected)));
        assert_eq!(read_metadata(&encode(&[Value::text("onTextData")])), Ok(None));
        let lies = Value::object([
            ("framerate", Value::Number(f64::NAN)),
            ("videodatarate", Value::Number(-1.0)),
            ("videocodecid", Value::text("avc1")),
        ]);
        let bytes = encode(&[Value::text("onMetaData"), lies]);
        assert_eq!(read_metadata(&bytes), Ok(Some(Announcement { video: true, ..Announcement::default() })));
    }
}
